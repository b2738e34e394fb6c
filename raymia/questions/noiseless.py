"""Probes for denoisers that draw no noise: SecMI's, PIA's and SimA's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch

from raymia.evidence.image import DISTANCES
from raymia.models.batching import run_on_images
from raymia.models.denoisers.model import Denoiser
from raymia.questions.base import AboutRecord, Item
from raymia.questions.images import (
    answer_row,
    captions_of,
    chunks,
    columns_of,
    decode_pixels,
    distances,
    encode,
    list_schema,
)

Tensor = torch.Tensor
Predict = Callable[[Tensor, int], Tensor]

MAP = "map"


@dataclass(frozen=True)
class _OfTimesteps(AboutRecord, ABC):
    """Base of probes whose answer is one residual at each of some timesteps."""

    timesteps: tuple[int, ...]
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    def key_parts(self) -> Mapping[str, Any]:
        return {"timesteps": list(self.timesteps)}

    @property
    def passes(self) -> int:
        return len(self.timesteps)

    @abstractmethod
    def residuals(self, model: Denoiser, clean: Tensor, predict: Predict) -> list[Tensor]:
        """The residual at each timestep, each [batch, *latent_shape]."""

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        def answer(clean: Tensor, predict: Predict) -> dict[str, Tensor]:
            found = [distances(r) for r in self.residuals(model, clean, predict)]
            return {c: torch.stack([d[c] for d in found], dim=1) for c in DISTANCES}

        return _ask(model, items, answer, self.schema)


@dataclass(frozen=True)
class CleanProbe(_OfTimesteps):
    """The noise that the model sees in the record itself (SimA, arXiv 2509.25003)."""

    kind: ClassVar[str] = "image.clean"

    def residuals(self, model: Denoiser, clean: Tensor, predict: Predict) -> list[Tensor]:
        del model
        return [predict(clean, t) for t in self.timesteps]


@dataclass(frozen=True)
class ProximalProbe(_OfTimesteps):
    """The change of the predicted noise from t = 0 to t (PIA, arXiv 2305.18355).

    ``eps_0 - eps_theta(sqrt(abar_t) x + sqrt(1 - abar_t) eps_0, t)`` with eps_0 = eps_theta(x, 0);
    normalized (PIAN), eps_0 is scaled to the mean absolute value of a standard normal.
    """

    normalized: bool = False
    kind: ClassVar[str] = "image.proximal"

    def key_parts(self) -> Mapping[str, Any]:
        return {**super().key_parts(), "normalized": self.normalized}

    @property
    def passes(self) -> int:
        return 1 + len(self.timesteps)

    def residuals(self, model: Denoiser, clean: Tensor, predict: Predict) -> list[Tensor]:
        initial = predict(clean, 0)
        if self.normalized:
            size = initial.abs().flatten(1).mean(1).reshape(-1, 1, 1, 1)
            initial = initial * (2 / torch.pi) ** 0.5 / size
        found = []
        for t in self.timesteps:
            steps = torch.full((len(clean),), t)
            found.append(initial - predict(model.add_noise(clean, initial, steps), t))
        return found


@dataclass(frozen=True)
class InversionProbe(AboutRecord):
    """The t-error: from x_t of DDIM inversion one step up and one step back (SecMI, 2302.01316).

    The record is taken for x at t = 0 and inverted in steps of ``step`` to ``timestep``. With
    ``with_map`` the absolute residual is stored too, [channels, height, width] flattened.
    """

    timestep: int
    step: int
    with_map: bool
    kind: ClassVar[str] = "image.inversion"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema((*DISTANCES, MAP))

    def key_parts(self) -> Mapping[str, Any]:
        return {"timestep": self.timestep, "step": self.step, "map": self.with_map}

    @property
    def passes(self) -> int:
        return self.timestep // self.step + 2

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        def answer(clean: Tensor, predict: Predict) -> dict[str, Tensor]:
            reached = clean
            for t in range(0, self.timestep, self.step):
                reached = move(model, reached, predict(reached, t), t, t + self.step)
            up = self.timestep + self.step
            further = move(model, reached, predict(reached, self.timestep), self.timestep, up)
            back = move(model, further, predict(further, up), up, self.timestep)
            residual = back - reached
            found = {c: d[:, None] for c, d in distances(residual).items()}
            return {**found, MAP: residual.abs().flatten(1)} if self.with_map else found

        return _ask(model, items, answer, self.schema)


def move(model: Denoiser, noisy: Tensor, noise: Tensor, start: int, end: int) -> Tensor:
    """One deterministic DDIM step between timesteps, up or down (Song et al. 2021, eq. 12)."""
    signal, sigma = model.coefficients(torch.tensor([start]))
    to_signal, to_sigma = model.coefficients(torch.tensor([end]))
    return to_signal * (noisy - sigma * noise) / signal + to_sigma * noise


def _ask(
    model: Denoiser,
    items: Sequence[Item],
    answer: Callable[[Tensor, Predict], dict[str, Tensor]],
    schema: pa.Schema,
) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for chunk in chunks(items, model.batch_images):
        latents, captions = encode(model, decode_pixels(chunk, model)), captions_of(model, chunk)

        def run(
            batch: list[int], latents: Tensor = latents, captions: list[str] | None = captions
        ) -> list[dict[str, Any]]:
            given = None if captions is None else [captions[n] for n in batch]

            def predict(noisy: Tensor, t: int) -> Tensor:
                return model.predict_noise(noisy, torch.full((len(noisy),), t), given)

            return columns_of(answer(latents[batch], predict))

        answers = run_on_images(len(chunk), run, budget=model.batch_images)
        rows += [answer_row(item, found) for item, found in zip(chunk, answers, strict=True)]
    return pa.Table.from_pylist(rows, schema=schema)
