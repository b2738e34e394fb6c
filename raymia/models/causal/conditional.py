"""What a causal language model says of texts after a prefix that they share."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from raymia.models.batching import is_lost_device, is_out_of_memory
from raymia.models.causal.causality import COARSE, FIRST, TOLERANCE
from raymia.models.causal.model import CausalLM, Floats, LogProbs, chosen_of
from raymia.models.causal.packing import begins_after_tokens
from raymia.models.causal.reading import Bools, PlainReader

PREFIX_SHARE = 0.5
"""Most of the model's context that a prefix may take."""
LOG = logging.getLogger(__name__)
_EXPANDS: WeakKeyDictionary[CausalLM, bool] = WeakKeyDictionary()
"""Whether what a model keeps of a prefix may be expanded over a batch."""


def prefix_tokens(model: CausalLM, shots: Sequence[str], *, as_text: bool = False) -> list[int]:
    """Tokens of the shots: of texts joined by blank lines, of other records one after another.

    Shots that cannot be read as the training read its records are left out. Of the others, some are
    dropped from the end until the prefix takes at most half of the model's context; a single shot
    longer than that is cut. Nothing where there is no shot left.

    Parameters
    ----------
    as_text : take the text of what is scored of each shot, whatever kind of record it is.
    """
    read = model.reader.read(shots)
    shots = [shot for shot, found in zip(shots, read, strict=True) if found.error is None]
    if len(shots) < len(read):
        left_out = len(read) - len(shots)
        LOG.warning("%d of %d shots cannot be read, and are left out", left_out, len(read))
    reader = PlainReader(model.tokenizer) if as_text else model.reader
    if as_text:
        shots = [model.reader.text(shot) for shot in shots]
    limit = None if model.max_tokens is None else int(PREFIX_SHARE * model.max_tokens)
    for count in range(len(shots), 0, -1):
        ids = reader.before(shots[:count])
        if limit is None or len(ids) <= limit or count == 1:
            return ids[:limit]
    return []


def answer_after(model: CausalLM, prefix: Sequence[int], texts: Sequence[str]) -> list[LogProbs]:
    """Ask for the log-probability of every token of every text after a prefix: of the first too,
    whose context is the prefix.

    The prefix is run once and its key-value cache expanded over each batch. Where an architecture
    or an adapter keeps no such cache, prefix and text are run together.
    """
    full = model.known(model.reader.read_after(texts))
    room = None if model.max_tokens is None else model.max_tokens - len(prefix)
    ids = [record.ids[:room] for record in full]
    wanted = [
        None if r.scored is None else r.scored[: len(i)] for r, i in zip(full, ids, strict=True)
    ]
    cached = _run_prefix(model, prefix)

    def run(model: CausalLM, batch: list[int]) -> list[LogProbs]:
        longest = len(prefix) + max(len(ids[i]) for i in batch)
        is_one_side = model.apart is None or not len(prefix) <= model.apart < longest
        answers = _forward(
            model, prefix, cached if is_one_side else None,
            [ids[i] for i in batch], [wanted[i] for i in batch],
        )  # fmt: skip
        return [
            LogProbs(answer, len(full[i].ids) > len(ids[i]), full[i].error)
            for i, answer in zip(batch, answers, strict=True)
        ]

    return model.run([len(prefix) + len(tokens) for tokens in ids], run)


@dataclass(frozen=True)
class _Cached:
    last: torch.Tensor
    cache: Any


def _run_prefix(model: CausalLM, prefix: Sequence[int]) -> _Cached | None:
    """The prefix's last hidden state [1, 1, width] and its cache; None where there is no cache."""
    settings = getattr(model.model, "active_peft_config", None)
    if settings is not None and (settings.is_prompt_learning or begins_after_tokens(settings)):
        return None
    if model not in _EXPANDS:
        _EXPANDS[model] = _tried(model)
    return _cached(model, prefix) if _EXPANDS[model] else None


@torch.inference_mode()
def _cached(model: CausalLM, prefix: Sequence[int]) -> _Cached | None:
    ids = torch.tensor([list(prefix)], device=model.device)
    states, output = model.head.output_of(torch.ones_like(ids), input_ids=ids, use_cache=True)
    cache = getattr(output, "past_key_values", None)
    layers = getattr(cache, "layers", [None])
    if not all(hasattr(layer, "batch_repeat_interleave") for layer in layers):
        return None  # as in models that mix attention with other layers
    return _Cached(states[:, -1:], cache)


@torch.inference_mode()
def _tried(model: CausalLM) -> bool:
    """Ask for two texts after a prefix, by its cache and without: layers that keep more than keys
    and values may expand these alone."""
    prefix, *ids = ([(FIRST + n) % model.rows for n in range(k, k + 5)] for k in (0, 5, 10))
    wanted: list[Bools | None] = [None, None]
    try:
        cached = _cached(model, prefix)
        if cached is None:
            return False
        by_cache = np.concatenate(_forward(model, prefix, cached, ids, wanted))
    except Exception as error:  # of any kind, by what the architecture does with a cache
        if is_out_of_memory(error) or is_lost_device(error):
            raise
        return False
    whole = np.concatenate(_forward(model, prefix, None, ids, wanted))
    share = TOLERANCE.get(model.model.get_input_embeddings().weight.dtype, COARSE)
    return bool(np.abs(by_cache - whole).max() <= share * np.abs(whole).max())


@torch.inference_mode()
def _forward(
    model: CausalLM,
    prefix: Sequence[int],
    cached: _Cached | None,
    ids: list[list[int]],
    wanted: list[Bools | None],
) -> list[Floats]:
    width = max(1, *(len(tokens) for tokens in ids))
    device, start = model.device, len(prefix)
    padded = torch.tensor([t + [0] * (width - len(t)) for t in ids], device=device)
    lengths = torch.tensor([len(t) for t in ids], device=device)
    scored = torch.arange(width, device=device)[None, :] < lengths[:, None]
    before = torch.ones((len(ids), start), dtype=torch.long, device=device)
    mask = torch.cat([before, scored.long()], dim=1)
    scored, counts = chosen_of(ids, wanted, scored)
    if cached is None:
        whole = torch.cat([before * torch.tensor(list(prefix), device=device), padded], dim=1)
        hidden = model.head.hidden(mask, input_ids=whole)[:, start - 1 : -1]
    else:
        cache = copy.deepcopy(cached.cache)
        cache.batch_repeat_interleave(len(ids))
        states = model.head.hidden(mask, input_ids=padded, **model.head.keeping(cache))
        hidden = torch.cat([cached.last.expand(len(ids), -1, -1), states[:, :-1]], dim=1)
    log_prob = model.head.log_probs(hidden[scored], padded[scored], moments=False).log_prob
    ends = np.cumsum(counts)
    return np.split(log_prob.cpu().numpy(), ends[:-1])
