"""What a causal language model says of texts whose input embeddings are perturbed by noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from raymia.models.causal.model import CausalLM, Floats, LogProbs, chosen_of
from raymia.models.causal.reading import Bools
from raymia.util.draws import uniforms


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

    def run(model: CausalLM, batch: list[int]) -> list[LogProbs]:
        answers = _forward(
            model, [requests[i] for i in batch], [ids[i] for i in batch], [wanted[i] for i in batch]
        )
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


def scale_of(table: Any) -> float:
    """What an embedding multiplies the rows of its matrix by, as those of Gemma do."""
    return float(getattr(getattr(table, "base_layer", table), "embed_scale", 1.0))


@torch.inference_mode()
def _forward(
    model: CausalLM,
    requests: list[NoiseRequest],
    ids: list[list[int]],
    wanted: list[Bools | None],
) -> list[Floats]:
    width = max(2, *(len(tokens) for tokens in ids))
    padded = torch.tensor([t + [0] * (width - len(t)) for t in ids], device=model.device)
    lengths = torch.tensor([len(t) for t in ids], device=model.device)
    mask = torch.arange(width, device=model.device)[None, :] < lengths[:, None]
    table = model.model.get_input_embeddings()
    embedded = table(padded)
    unit = table.weight.float().std() * scale_of(table)
    for row, (request, tokens) in enumerate(zip(requests, ids, strict=True)):
        noise = normals(request.key, len(tokens), embedded.shape[-1], model.device)
        embedded[row, : len(tokens)] += (request.size * unit * noise).to(embedded.dtype)
    hidden = model.head.hidden(mask.long(), inputs_embeds=embedded)[:, :-1]
    scored, counts = chosen_of([t[1:] for t in ids], wanted, mask[:, 1:])
    log_prob = model.head.log_probs(hidden[scored], padded[:, 1:][scored], moments=False).log_prob
    ends = np.cumsum(counts)
    return np.split(log_prob.cpu().numpy(), ends[:-1])
