"""Sampling that is a function of counters: which token is drawn does not depend on the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, StoppingCriteria

from raymia.util.draws import gumbels

TOO_CLOSE = 1e-4
"""Perturbed logits this near could change places with the rounding of another batch shape.

Float32 logits of the same sequence in batches of different shapes differ by about 1e-5.
"""


class CounterSampler(LogitsProcessor):  # type: ignore[misc]
    """Turn greedy decoding into sampling, by adding Gumbel noise that is a function of counters.

    The largest of ``logits / temperature + Gumbel`` is an exact draw from the softmax. The noise of
    a row is a function of the row's key and of the step, so the draw does not depend on the row's
    batch mates but through rounding; rows in which a draw was near enough for rounding to decide
    are marked in ``close_calls``, to be sampled again alone.

    Parameters
    ----------
    keys : one key per row, from :func:`raymia.util.draws.stream_key`.
    temperature : logits are divided by it.
    top_k : sample among the k likeliest tokens; None among all.

    Attributes
    ----------
    first_close : per row, the step of the first draw that rounding could have decided; infinity
        where there was none.
    """

    def __init__(self, keys: list[int], temperature: float, top_k: int | None) -> None:
        self.keys = torch.tensor(keys, dtype=torch.int64)
        self.temperature = temperature
        self.top_k = top_k
        self.step = 0
        self.first_close = [math.inf] * len(keys)
        self._rows = list(range(len(keys)))

    @property
    def close_calls(self) -> list[bool]:
        """Per row, whether rounding could have decided a draw."""
        return [step < math.inf for step in self.first_close]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with some of the rows that are left."""
        self.keys = self.keys[list(places)]
        self._rows = [self._rows[place] for place in places]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        logits = scores.double() / self.temperature
        vocabulary = logits.shape[-1]
        close = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        if self.top_k is not None and self.top_k < vocabulary:
            edge = logits.topk(self.top_k + 1, dim=-1).values[:, -2:]
            close |= edge[:, 0] - edge[:, 1] < TOO_CLOSE
            logits = logits.masked_fill(logits < edge[:, :1], -torch.inf)
        perturbed = logits + gumbels(self.keys.to(logits.device), self.step, vocabulary)
        best = perturbed.topk(2, dim=-1).values
        close |= best[:, 0] - best[:, 1] < TOO_CLOSE
        for place in close.nonzero()[:, 0].tolist():
            row = self._rows[place]
            self.first_close[row] = min(self.first_close[row], self.step)
        self.step += 1
        return perturbed


class StopAtOwnToken(StoppingCriteria):  # type: ignore[misc]
    """Stop each row at a token of its own."""

    def __init__(self, stops: list[int]) -> None:
        self.stops = torch.tensor(stops, dtype=torch.int64)

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object
    ) -> torch.Tensor:
        del scores, kwargs
        reached: torch.Tensor = input_ids[:, -1] == self.stops.to(input_ids.device)
        return reached
