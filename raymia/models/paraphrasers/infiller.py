"""Causal language models as infillers: they continue the left of a span and judge by its right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raymia.models import sampling
from raymia.models.batching import run_batched
from raymia.models.causal.model import CausalLM
from raymia.spec import InfillNeighbors
from raymia.util.draws import gumbels, stream_key
from raymia.util.errors import InputError

SPARE_TOKENS = 8
"""A text that was cut and put together again may have a few tokens more."""

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class InfillRequest:
    """A span to be filled.

    Attributes
    ----------
    left : the text before the span, with the white space that parts them.
    words : how many words the fill has.
    right : the text after the span that its fill is judged by, with the white space before it.
    key : the stream of draws that its fill is sampled with.
    """

    left: str
    words: int
    right: str
    key: int


@dataclass(frozen=True)
class _Row:
    """One candidate to be sampled."""

    prefix: list[int]
    words: int
    key: int


class CausalInfiller:
    """A causal language model that fills spans of words.

    A causal model sees only what stands before a token, so the fill is drawn in two steps
    (sampling importance resampling, Rubin 1987): candidates are continuations of the left, and one
    of them is drawn with probability in proportion to p(right | left, candidate). The more
    candidates, the nearer the fill is to a draw from p(fill | left, right).

    Parameters
    ----------
    lm : the model, in float32.
    """

    def __init__(self, lm: CausalLM) -> None:
        self.lm = lm
        tokenizer = lm.tokenizer
        starts = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        self.start = next((token for token in starts if token is not None), None)
        self.padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.max_rows = None if self._pads_alike() else 1

    def fill(self, requests: Sequence[InfillRequest], spec: InfillNeighbors) -> list[str | None]:
        """Draw the fill of each request; None where no candidate is as many whole words.

        The answer to a request does not depend on the others: draws are counter-based, and what
        rounding could have decided is computed again alone.
        """
        lefts = [self._cut_left(request, spec) for request in requests]
        rows = [
            _Row(prefix, request.words, stream_key(request.key, candidate))
            for request, (prefix, _) in zip(requests, lefts, strict=True)
            for candidate in range(spec.candidates)
        ]
        fills = self._sample(rows, spec)
        candidates = [fills[i : i + spec.candidates] for i in range(0, len(rows), spec.candidates)]
        return self._choose(requests, [left for _, left in lefts], candidates, spec)

    def _cut_left(self, request: InfillRequest, spec: InfillNeighbors) -> tuple[list[int], str]:
        """The last tokens of the left, as ids to be continued and as text."""
        bare = request.left.rstrip()
        ids = self.lm.encode_beginnings([bare])[0] if bare else []
        if not bare:
            if self.start is None:
                raise InputError(
                    "neighbors.model: its tokenizer has neither a BOS nor an EOS token, so it "
                    "cannot fill the first words of a text; give another causal model"
                )
            return [self.start], request.left
        most = spec.left_tokens
        if self.lm.max_tokens is not None:
            others = _new_tokens(request.words, spec) + spec.right_tokens + SPARE_TOKENS
            most = min(most, self.lm.max_tokens - others)
            if most < 1:
                raise InputError(
                    f"neighbors: the model reads {self.lm.max_tokens} tokens, and a fill and what "
                    f"it is judged by take {others}, so none is left for the text before it; make "
                    "span, max_fill_tokens or right_tokens smaller"
                )
        if len(ids) <= most:
            return ids, request.left
        ids = ids[-most:]
        return ids, self._decode(ids) + request.left[len(bare) :]

    def _sample(self, rows: list[_Row], spec: InfillNeighbors) -> list[str | None]:
        def run(batch: list[int]) -> list[tuple[list[int], bool]]:
            return self._generate([rows[i] for i in batch], spec)

        lengths = [len(row.prefix) + _new_tokens(row.words, spec) for row in rows]
        answers = run_batched(lengths, run, budget=self.lm.batch_tokens, max_rows=self.max_rows)
        fills = []
        for number, (row, (tokens, close_call)) in enumerate(zip(rows, answers, strict=True)):
            if close_call:
                tokens = run([number])[0][0]
            fills.append(self._read(row, tokens))
        return fills

    def _generate(self, rows: list[_Row], spec: InfillNeighbors) -> list[tuple[list[int], bool]]:
        sampler = sampling.CounterSampler([r.key for r in rows], spec.temperature, spec.top_k)
        new = [_new_tokens(row.words, spec) for row in rows]
        prefixes = [row.prefix for row in rows]
        output = self._continue(prefixes, max(new), logits_processor=[sampler])
        generated = output.sequences[:, max(map(len, prefixes)) :].tolist()
        close = sampler.close_calls
        return [(tokens[:n], c) for tokens, n, c in zip(generated, new, close, strict=True)]

    @torch.inference_mode()
    def _continue(self, prefixes: list[list[int]], length: int, **settings: Any) -> Any:
        """Continue by ``length`` tokens, none of which ends the text.

        Prefixes are padded on the left, so that all go on at the same place.
        """
        width = max(map(len, prefixes))
        padded = [[self.padding] * (width - len(p)) + p for p in prefixes]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prefixes]
        return self.lm.model.generate(
            input_ids=torch.tensor(padded, device=self.lm.device),
            attention_mask=torch.tensor(mask, device=self.lm.device),
            do_sample=False,
            num_beams=1,
            min_new_tokens=length,
            max_new_tokens=length,
            pad_token_id=self.padding,
            return_dict_in_generate=True,
            **settings,
        )

    def _pads_alike(self) -> bool:
        """Check that padding changes no answer; it does where positions do not follow the mask."""
        vocabulary = self.lm.model.config.get_text_config().vocab_size
        row = [token % vocabulary for token in range(1, 6)]
        alone = self._continue([row], 1, output_logits=True).logits[0][0]
        padded = self._continue([row, row * 2], 1, output_logits=True).logits[0][0]
        largest = alone.abs().max().clamp_min(1)
        return bool((alone - padded).abs().max() <= sampling.TOO_CLOSE * largest)

    def _read(self, row: _Row, tokens: list[int]) -> str | None:
        """The first words of a continuation; None where they are too few, cut off, or broken, or
        where the continuation goes on with the word before the span."""
        before = self._decode(row.prefix)
        text = self._decode(row.prefix + tokens)[len(before) :]
        words = [match.span() for match in _WORD.finditer(text)][: row.words]
        if len(words) < row.words or (before and not text[0].isspace()):
            return None
        fill = text[words[0][0] : words[-1][1]]
        cut_off = words[-1][1] == len(text)
        return None if cut_off or "\ufffd" in fill else fill

    def _decode(self, ids: list[int]) -> str:
        text: str = self.lm.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _choose(
        self,
        requests: Sequence[InfillRequest],
        lefts: list[str],
        candidates: list[list[str | None]],
        spec: InfillNeighbors,
    ) -> list[str | None]:
        """Draw one candidate of each request, by how likely it makes the right."""
        judged = [
            (number, fill)
            for number, fills in enumerate(candidates)
            for fill in dict.fromkeys(fills)
            if fill is not None
        ]
        weights: list[dict[str, float]] = [{} for _ in requests]
        texts = [(lefts[number] + fill, requests[number].right) for number, fill in judged]
        for (number, fill), weight in zip(judged, self._log_probs(texts, spec), strict=True):
            weights[number][fill] = weight
        near = sampling.TOO_CLOSE * spec.right_tokens  # each token's log p is rounded for itself
        chosen: list[str | None] = []
        for request, left, fills, found in zip(requests, lefts, candidates, weights, strict=True):
            drawn, margin = _draw(request.key, fills, found)
            if margin < near:
                alone = {f: self._log_probs([(left + f, request.right)], spec)[0] for f in found}
                drawn, _ = _draw(request.key, fills, alone)
            chosen.append(drawn)
        return chosen

    def _log_probs(self, texts: Sequence[tuple[str, str]], spec: InfillNeighbors) -> list[float]:
        """Log-probability of the second of two texts after the first, of its first tokens."""
        if not texts:
            return []
        # A word has one token at least, so these words hold the tokens that count.
        rights = ["".join(re.findall(r"\s*\S+", right)[: spec.right_tokens]) for _, right in texts]
        starts = [len(ids) for ids in self.lm.encode_beginnings([before for before, _ in texts])]
        whole = [before + right for (before, _), right in zip(texts, rights, strict=True)]
        return [
            float(answer.log_prob[start - 1 :][: spec.right_tokens].sum(dtype=np.float64))
            for start, answer in zip(starts, self.lm.answer(whole, moments=False), strict=True)
        ]


def _new_tokens(words: int, spec: InfillNeighbors) -> int:
    """One more than the words may take, since a word is whole where the next begins."""
    return words * spec.max_fill_tokens + 1


def _draw(
    key: int, fills: list[str | None], log_weights: dict[str, float]
) -> tuple[str | None, float]:
    """Draw a fill in proportion to exp(log_weights); None where no weight is finite.

    Returns
    -------
    The fill, and by how much it was drawn before the next other one.
    """
    noise = gumbels(torch.tensor([stream_key(key, "choice")]), 0, len(fills))[0].tolist()
    ranked = sorted(
        (
            (log_weights[fill] + noise[number], fill)
            for number, fill in enumerate(fills)
            if fill is not None and np.isfinite(log_weights[fill])
        ),
        reverse=True,
    )
    if not ranked:
        return None, np.inf
    best, chosen = ranked[0]
    rival = next((score for score, fill in ranked if fill != chosen), -np.inf)
    return chosen, best - rival
