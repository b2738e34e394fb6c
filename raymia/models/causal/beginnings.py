"""Texts that begin alike, as a record's neighbors do: what they share is run once.

One text of each group is run whole, and its keys and values are kept. Of the others only what
follows the shared beginning is run. A model is asked so only if it answers a few made-up texts as
it does without.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from raymia.models.batching import is_lost_device, is_out_of_memory, run_batched, worthwhile_tokens
from raymia.models.causal.causality import COARSE, TOLERANCE
from raymia.models.causal.model import (
    BEYOND_CONTEXT,
    CausalLM,
    Floats,
    TokenAnswer,
    chosen_of,
)
from raymia.models.causal.packing import begins_after_tokens
from raymia.models.causal.reading import Bools, Rendered
from raymia.models.causal.tiles import KEPT_BYTES

MIN_SHARED = 4
"""Tokens; less is not worth a batch of its own."""
FIRST = 4
"""The first token of the texts that a model is tried on."""
LOG = logging.getLogger(__name__)
_KEEPS: WeakKeyDictionary[CausalLM, int] = WeakKeyDictionary()
"""Tokens whose keys and values may be kept; 0 where a model is not asked so."""


@dataclass(frozen=True)
class _Text:
    """One text of a group.

    Attributes
    ----------
    ids : as far as the model reads them.
    wanted : which of the tokens after the first are scored.
    kept : how many tokens of the group's first text are its own, too, and are not run again; 0 for
        that text.
    """

    ids: list[int]
    wanted: Bools
    kept: int = 0


def answer_alike(model: Any, texts: Sequence[str], groups: Sequence[Hashable]) -> list[TokenAnswer]:
    """What :meth:`CausalLM.answer` says without moments, up to rounding.

    Parameters
    ----------
    groups : texts of one group may begin alike; as long as ``texts``.
    """
    if not isinstance(model, CausalLM) or len(set(groups)) == len(texts) or not tokens_kept(model):
        return list(model.answer(texts, moments=False))
    records = model.read(texts)
    found: dict[int, TokenAnswer] = {}
    whole: dict[int, _Text] = {}
    for index, record in enumerate(records):
        end = model.only_window(len(record.ids))
        if record.error is None and end is not None and (model.apart is None or end <= model.apart):
            wanted = np.ones(len(record.ids), bool) if record.scored is None else record.scored
            whole[index] = _Text(record.ids[:end], wanted[1:end])
    rest = [index for index in range(len(texts)) if index not in whole]
    found.update(
        zip(rest, model.answer_read([records[i] for i in rest], moments=False), strict=True)
    )
    members: dict[Hashable, list[int]] = {}
    for index in whole:
        members.setdefault(groups[index], []).append(index)
    sets = [part for own in members.values() for part in _parted(own, [whole[i].ids for i in own])]
    families = [
        [_after(whole[first], whole[i]) for i in (first, *others)] for first, others in sets
    ]
    budget = min(model.batch_tokens, tokens_kept(model))
    for (first, others), answers in zip(sets, _answers(model, families, budget), strict=True):
        for index, log_prob in zip((first, *others), answers, strict=True):
            found[index] = _answer(whole[index], records[index], log_prob)
    return [found[index] for index in range(len(texts))]


def _answer(text: _Text, record: Rendered, log_prob: Floats) -> TokenAnswer:
    tokens = np.asarray(text.ids[1:], np.int32)[text.wanted]
    beyond = record.scored is not None and not len(tokens)
    truncated = len(text.ids) < len(record.ids)
    error = BEYOND_CONTEXT if beyond else None
    return TokenAnswer(tokens, log_prob, None, None, None, truncated, error)


def _parted(own: Sequence[int], ids: Sequence[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Texts of a group, each with those that share enough of its beginning; the first is the one
    that shares most with the others."""
    width = max(map(len, ids))
    padded = np.full((len(ids), width), -1)
    for row, tokens in enumerate(ids):
        padded[row, : len(tokens)] = tokens
    lengths = np.array([len(tokens) for tokens in ids])
    alike = (padded[:, None] == padded).cumprod(axis=2).sum(axis=2)
    alike = np.minimum(alike, np.minimum(lengths[:, None], lengths))
    first = int(alike.sum(axis=1).argmax())
    close = [n for n in range(len(ids)) if n != first and alike[first, n] > MIN_SHARED]
    yield own[first], [own[n] for n in close]
    yield from ((own[n], []) for n in range(len(ids)) if n != first and n not in close)


def _after(first: _Text, other: _Text) -> _Text:
    """A text whose beginning the first text of its group has run; the last token that they share is
    run again, since what follows it is another."""
    if other is first:
        return other
    pairs = enumerate(zip(first.ids, other.ids, strict=False))
    shared = min(len(first.ids), len(other.ids))
    alike = next((n for n, (a, b) in pairs if a != b), shared)
    return _Text(other.ids, other.wanted, alike - 1)


def _answers(
    model: CausalLM, families: Sequence[Sequence[_Text]], budget: int
) -> list[list[Floats]]:
    """Log-probabilities of the scored tokens of each text; the first of a family is run whole.

    Parameters
    ----------
    budget : tokens that are kept at once.
    """

    def run(model: CausalLM, batch: list[int]) -> list[list[Floats]]:
        return _batch(model, [families[i] for i in batch], budget // model.head.lanes)

    return model.run([len(family[0].ids) for family in families], run, budget=budget)


@torch.inference_mode()
def _batch(model: CausalLM, families: Sequence[Sequence[_Text]], budget: int) -> list[list[Floats]]:
    firsts = [family[0] for family in families]
    cache = _new_cache() if any(len(family) > 1 for family in families) else None
    wanted = [_wanted_of_all(family) for family in families]
    mask, padded = _padded(model, [text.ids for text in firsts])
    given = {} if cache is None else model.head.keeping(cache)
    hidden = model.head.hidden(mask, input_ids=padded, **given)
    said = _log_probs(model, hidden, padded, [t.ids for t in firsts], wanted)
    known = []
    for text, own, values in zip(firsts, wanted, said, strict=True):
        of_all = np.full(len(text.ids) - 1, np.nan, np.float32)
        of_all[own] = values
        known.append(of_all)
    rows = [(row, text) for row, family in enumerate(families) for text in family[1:]]
    follow = iter(_followers(model, cache, rows, budget))
    answers = []
    for family, of_all in zip(families, known, strict=True):
        answers.append([of_all[family[0].wanted]])
        for text in family[1:]:
            before = of_all[: text.kept][text.wanted[: text.kept]]
            answers[-1].append(np.concatenate([before, next(follow)]))
    return answers


def _wanted_of_all(family: Sequence[_Text]) -> Bools:
    """Which tokens of a family's first text are scored, for itself or for the others."""
    wanted = family[0].wanted.copy()
    for text in family[1:]:
        wanted[: text.kept] |= text.wanted[: text.kept]
    return wanted


def _followers(
    model: CausalLM, cache: Any, rows: Sequence[tuple[int, _Text]], budget: int
) -> list[Floats]:
    """Log-probabilities of the scored tokens that follow what is kept.

    Parameters
    ----------
    rows : the place in the cache of the text that each begins as, and the text.
    """
    if not rows:
        return []
    longest = max(len(text.ids) for _, text in rows)
    return run_batched(
        [len(text.ids) - text.kept for _, text in rows],
        lambda batch: _follow(model, cache, [rows[i] for i in batch]),
        budget=model.batch_tokens,
        # What is kept takes memory as what is run does.
        max_rows=max(1, budget // longest),
        min_tokens=worthwhile_tokens(model.batch_tokens),
    )


@torch.inference_mode()
def _follow(model: CausalLM, cache: Any, rows: Sequence[tuple[int, _Text]]) -> list[Floats]:
    texts = [text for _, text in rows]
    ids = [text.ids[text.kept :] for text in texts]
    wanted = [text.wanted[text.kept :] for text in texts]
    if not any(chosen.any() for chosen in wanted):
        return [np.zeros(0, np.float32) for _ in rows]
    there, padded = _padded(model, ids)
    kept = torch.tensor([text.kept for text in texts], device=model.device)
    width = int(kept.max())
    # What is kept ends where the text goes on, so that distances are as they were.
    places = torch.arange(width, device=model.device) - (width - kept[:, None])
    before = (places >= 0).long()
    owners = torch.tensor([row for row, _ in rows], device=model.device)
    past = _taken(cache, owners, places.clamp_min(0))
    # Of padding the last token's: there may be no further ones.
    last = torch.tensor([len(tokens) - 1 for tokens in ids], device=model.device)
    steps = torch.arange(padded.shape[1], device=model.device).minimum(last[:, None])
    positions = kept[:, None] + steps
    given = model.head.keeping(past)
    if "position_ids" in model.head.takes:
        given["position_ids"] = positions
    mask = torch.cat([before, there], dim=1)
    hidden = model.head.hidden(mask, input_ids=padded, **given)
    return _log_probs(model, hidden, padded, ids, wanted)


def _log_probs(
    model: CausalLM, hidden: Tensor, padded: Tensor, ids: Sequence[list[int]],
    wanted: Sequence[Bools],
) -> list[Floats]:  # fmt: skip
    lengths = torch.tensor([len(tokens) for tokens in ids], device=model.device)
    there = torch.arange(1, padded.shape[1], device=model.device)[None] < lengths[:, None]
    scored, counts = chosen_of([tokens[1:] for tokens in ids], list(wanted), there)
    hidden, labels = hidden[:, :-1][scored], padded[:, 1:][scored]
    log_prob = model.head.log_probs(hidden, labels, moments=False).log_prob.cpu().numpy()
    return np.split(log_prob, np.cumsum(counts)[:-1])


def _padded(model: CausalLM, ids: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Mask and tokens [texts, width]; at least two tokens wide, so that there is one to predict."""
    width = max(2, *(len(tokens) for tokens in ids))
    padded = torch.tensor([t + [0] * (width - len(t)) for t in ids], device=model.device)
    lengths = torch.tensor([len(tokens) for tokens in ids], device=model.device)
    mask = torch.arange(width, device=model.device)[None] < lengths[:, None]
    return mask.long(), padded


def _new_cache() -> Any:
    """A cache that keeps all keys and values, those of sliding windows too."""
    from transformers import DynamicCache

    return DynamicCache()


def _taken(cache: Any, owners: Tensor, places: Tensor) -> Any:
    """A cache whose rows are some positions of a cache's rows."""
    taken = _new_cache()
    for number, layer in enumerate(cache.layers):
        keys, values = (
            held.transpose(1, 2)[owners[:, None], places].transpose(1, 2)
            for held in (layer.keys, layer.values)
        )
        taken.update(keys, values, number)
    return taken


def tokens_kept(model: CausalLM) -> int:
    """How many tokens of texts that are run whole are kept at once; 0 where the model does not
    answer by what is kept as it does without."""
    if model not in _KEEPS:
        _KEEPS[model] = KEPT_BYTES // _bytes_per_token(model) if _tried(model) else 0
        if not _KEEPS[model]:
            LOG.info("beginnings that texts share are run for each: the model keeps none")
    return _KEEPS[model]


@torch.inference_mode()
def _bytes_per_token(model: CausalLM) -> int:
    cache = _new_cache()
    mask, ids = _padded(model, [[FIRST % model.rows] * 2])
    model.head.hidden(mask, input_ids=ids, **model.head.keeping(cache))
    held = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return max(1, sum(int(tensor.nbytes) for tensor in held) // ids.numel())


@torch.inference_mode()
def _tried(model: CausalLM) -> bool:
    """Ask for texts that begin alike, both ways."""
    settings = getattr(model.model, "active_peft_config", None)
    if settings is not None and (settings.is_prompt_learning or begins_after_tokens(settings)):
        return False
    if model.one_by_one or (model.max_tokens or 16) < 16:
        return False
    ids = [[(FIRST + n) % model.rows for n in range(length)] for length in (14, 12, 15, 6)]
    for tokens, change in zip(ids[1:], (9, 5, 5), strict=True):
        tokens[change] = (tokens[change] + 3) % model.rows
    texts = [_Text(tokens, np.ones(len(tokens) - 1, bool)) for tokens in ids]
    family = [_after(texts[0], text) for text in texts]
    try:
        shared = np.concatenate(_answers(model, [family], model.batch_tokens)[0])
    except Exception as error:  # of any kind, by what the architecture does with a cache
        if is_out_of_memory(error) or is_lost_device(error):
            raise
        return False
    said = model.answer_read([Rendered(tokens) for tokens in ids], moments=False)
    alone = np.concatenate([answer.log_prob for answer in said])
    share = TOLERANCE.get(model.model.get_input_embeddings().weight.dtype, COARSE)
    return bool(np.abs(shared - alone).max() <= share * np.abs(alone).max())
