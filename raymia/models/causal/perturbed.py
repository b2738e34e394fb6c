"""What a causal language model says of texts whose input embeddings are perturbed by noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raymia.models.causal.model import CausalLM, Floats, LogProbs, chosen_of
from raymia.models.causal.reading import Bools
from raymia.util.draws import uniforms
from raymia.util.errors import RaymiaError

ROWS_AT_ONCE = 4_096
"""Of the table of embeddings."""


@dataclass(frozen=True)
class NoiseRequest:
    """One text with Gaussian noise on the embeddings of its tokens.

    Attributes
    ----------
    key : of the noise, from :func:`raymia.util.draws.stream_key`.
    size : standard deviation of the noise, in those of the model's embeddings as its first layer
        takes them; negative for the same noise with the other sign.
    """

    text: str
    key: int
    size: float


def answer_perturbed(model: CausalLM, requests: Sequence[NoiseRequest]) -> list[LogProbs]:
    """Ask for the log-probability of each text's tokens that have a context and are scored, under
    perturbed input embeddings.

    The noise of a token is a function of (key, position, dimension): two models whose embeddings
    have the same width are given the same noise, each in its own unit.
    """
    full = model.read([request.text for request in requests])
    ids = [record.ids[: model.max_tokens] for record in full]
    wanted = [
        None if r.scored is None else r.scored[1 : len(i)] for r, i in zip(full, ids, strict=True)
    ]

    unit = unit_of(model)

    def run(model: CausalLM, batch: list[int]) -> list[LogProbs]:
        answers = _forward(
            model, [requests[i] for i in batch], unit,
            [ids[i] for i in batch], [wanted[i] for i in batch],
        )  # fmt: skip
        return [
            LogProbs(answer, len(full[i].ids) > len(ids[i]), full[i].error)
            for i, answer in zip(batch, answers, strict=True)
        ]

    return model.run([len(tokens) for tokens in ids], run)


def normals(key: int, positions: int, width: int, device: torch.device) -> torch.Tensor:
    """Standard normal noise, float32 [positions, width]; the first positions of a longer text are
    the same."""
    uniform = uniforms(torch.tensor([key], device=device), 0, positions * width)
    normal = math.sqrt(2) * torch.erfinv(2 * uniform - 1)
    return normal.reshape(positions, width).float()


@torch.inference_mode()
def unit_of(model: CausalLM) -> float:
    """Standard deviation of the model's input embeddings, as its table gives them."""
    table = model.model.get_input_embeddings()
    count, total, squares = 0, 0.0, 0.0
    for start in range(0, model.rows, ROWS_AT_ONCE):
        some = torch.arange(start, min(start + ROWS_AT_ONCE, model.rows), device=model.device)
        found = table(some[None]).double()
        count += found.numel()
        total += float(found.sum())
        squares += float(found.square().sum())
    return math.sqrt(max(0.0, squares - total**2 / count) / (count - 1))


@contextmanager
def _with_noise(
    table: Any, ids: torch.Tensor, noise: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[None]:
    """Add noise to what a table of embeddings gives for these texts.

    The model is given tokens as ever: it may need them for more than this table, and may scale what
    the table gives.

    Parameters
    ----------
    ids : [texts, length].
    noise : from embeddings to what is added, [texts, length, width].

    Raises
    ------
    RaymiaError
        If the model did not ask the table.
    """
    met = False

    def add(_: Any, __: Any, embedded: torch.Tensor) -> torch.Tensor:
        nonlocal met
        if embedded.shape[:2] != ids.shape:
            return embedded
        met = True
        return embedded + noise(embedded)

    handle = table.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    if not met:
        raise RaymiaError(
            "the model does not read its texts by its table of input embeddings, so that no noise "
            "can be put on them; leave out the attacks that ask for `noise`"
        )


@torch.inference_mode()
def _forward(
    model: CausalLM,
    requests: list[NoiseRequest],
    unit: float,
    ids: list[list[int]],
    wanted: list[Bools | None],
) -> list[Floats]:
    width = max(2, *(len(tokens) for tokens in ids))
    padded = torch.tensor([t + [0] * (width - len(t)) for t in ids], device=model.device)
    lengths = torch.tensor([len(t) for t in ids], device=model.device)
    mask = torch.arange(width, device=model.device)[None, :] < lengths[:, None]

    def noise(embedded: torch.Tensor) -> torch.Tensor:
        made = torch.zeros_like(embedded)
        for row, (request, tokens) in enumerate(zip(requests, ids, strict=True)):
            drawn = normals(request.key, len(tokens), embedded.shape[-1], embedded.device)
            made[row, : len(tokens)] = (request.size * unit * drawn).to(embedded.dtype)
        return made

    with _with_noise(model.model.get_input_embeddings(), padded, noise):
        hidden = model.head.hidden(mask.long(), input_ids=padded)[:, :-1]
    scored, counts = chosen_of([t[1:] for t in ids], wanted, mask[:, 1:])
    log_prob = model.head.log_probs(hidden[scored], padded[:, 1:][scored], moments=False).log_prob
    ends = np.cumsum(counts)
    return np.split(log_prob.cpu().numpy(), ends[:-1])
