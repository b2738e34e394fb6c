"""Questions to denoisers that draw no noise: SecMI's, PIA's and SimA's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.evidence.image import DISTANCES
from raymia.questions.base import Item, Question, Setup, register_question
from raymia.questions.images import ImageQuestion, list_schema
from raymia.spec.images import Shape, Step

if TYPE_CHECKING:
    from torch import Tensor

    from raymia.models.denoisers.model import Denoiser
    from raymia.questions.asking.images import Predict

MAP = "map"
DENOISER = frozenset({"denoiser"})


@dataclass(frozen=True)
class _OfTimesteps(ImageQuestion):
    """Base of questions whose answer is one residual at each of some timesteps."""

    timesteps: tuple[Step, ...]
    families = DENOISER
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        assert cls.section is not None
        return [cls(tuple(getattr(setup.spec.probes, cls.section).timesteps))]

    @property
    def grid_steps(self) -> tuple[Step, ...]:
        return self.timesteps

    def key_parts(self) -> Mapping[str, Any]:
        return {"timesteps": list(self.timesteps)}

    @property
    def passes(self) -> int:
        return len(self.timesteps)

    @abstractmethod
    def residuals(self, model: Denoiser, clean: Tensor, predict: Predict) -> list[Tensor]:
        """The residual at each timestep, each [batch, *latent_shape]."""

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        import torch

        from raymia.questions.asking.images import ask_of_latents, distances

        def answer(clean: Tensor, _: Sequence[Item], predict: Predict) -> dict[str, Tensor]:
            found = [distances(r) for r in self.residuals(model, clean, predict)]
            return {c: torch.stack([d[c] for d in found], dim=1) for c in DISTANCES}

        return ask_of_latents(model, items, answer, self.schema)


@register_question
@dataclass(frozen=True)
class CleanQuestion(_OfTimesteps):
    """The noise that the model sees in the record itself (SimA, arXiv 2509.25003)."""

    name = "clean"
    cost = "c"
    section = "clean"
    kind: ClassVar[str] = "image.clean"

    def residuals(self, model: Denoiser, clean: Tensor, predict: Predict) -> list[Tensor]:
        del model
        return [predict(clean, t) for t in self.timesteps]


@register_question
@dataclass(frozen=True)
class ProximalQuestion(_OfTimesteps):
    """The change of the predicted noise from t = 0 to t (PIA, arXiv 2305.18355).

    ``eps_0 - eps_theta(sqrt(abar_t) x + sqrt(1 - abar_t) eps_0, t)`` with eps_0 = eps_theta(x, 0);
    in flow matching the residual is that of the velocity, and eps_0 is what is seen at s = 0.01.
    """

    name = "proximal"
    cost = "1 + p"
    section = "proximal"
    normalized: ClassVar[bool] = False
    kind: ClassVar[str] = "image.proximal"

    def key_parts(self) -> Mapping[str, Any]:
        return {**super().key_parts(), "normalized": self.normalized}

    @property
    def passes(self) -> int:
        return 1 + len(self.timesteps)

    def residuals(self, model: Denoiser, clean: Tensor, predict: Predict) -> list[Tensor]:
        import torch

        initial = predict(clean, model.path.first)
        if self.normalized:
            size = initial.abs().flatten(1).mean(1).reshape(-1, 1, 1, 1)
            initial = initial * (2 / torch.pi) ** 0.5 / size
        found = []
        for t in self.timesteps:
            steps = model.at([t] * len(clean))
            seen = predict(model.path.add_noise(clean, initial, steps), t)
            found.append(model.path.residual(initial, seen, steps))
        return found


@register_question
class NormalizedProximalQuestion(ProximalQuestion):
    """The same with eps_0 scaled to the mean absolute value of a standard normal (PIAN)."""

    name = "proximal_normalized"
    normalized = True


@register_question
@dataclass(frozen=True)
class InversionQuestion(ImageQuestion):
    """The t-error: from x_t of DDIM inversion one step up and one step back (SecMI, 2302.01316).

    The record is taken for x at t = 0 and inverted in steps of ``step`` to ``timestep``.
    """

    timestep: Step
    step: Step
    shape: Shape | None = field(default=None, kw_only=True)
    name = "inversion"
    families = DENOISER
    cost = "i"
    section = "inversion"
    with_map: ClassVar[bool] = False
    kind: ClassVar[str] = "image.inversion"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema((*DISTANCES, MAP))

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.inversion
        return [cls(spec.timestep, spec.step, shape=setup.latent_shape)]

    @property
    def grid_steps(self) -> tuple[Step, ...]:
        return (self.timestep,)

    def key_parts(self) -> Mapping[str, Any]:
        return {"timestep": self.timestep, "step": self.step, "map": self.with_map}

    @property
    def passes(self) -> int:
        return len(self.way)

    @property
    def way(self) -> list[Step]:
        """The timesteps from the record to where the error is measured, and one step further."""
        return [n * self.step for n in range(round(self.timestep / self.step))] + [
            self.timestep,
            self.timestep + self.step,
        ]

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        from raymia.questions.asking.images import ask_of_latents, distances, move

        def answer(clean: Tensor, _: Sequence[Item], predict: Predict) -> dict[str, Tensor]:
            reached = clean
            *way, last, up = self.way
            for t, after in pairwise([*way, last]):
                reached = move(model, reached, predict(reached, t), t, after)
            further = move(model, reached, predict(reached, last), last, up)
            back = move(model, further, predict(further, up), up, last)
            residual = back - reached
            found = {c: d[:, None] for c, d in distances(residual).items()}
            return {**found, MAP: residual.abs().flatten(1)} if self.with_map else found

        return ask_of_latents(model, items, answer, self.schema)


@register_question
class InversionMapQuestion(InversionQuestion):
    """The same with the absolute residual, [channels, height, width] flattened.

    Parameters
    ----------
    shape : of the residual.
    """

    name = "inversion_map"
    with_map = True
    includes = (InversionQuestion,)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Residual maps, float32 [records, *shape]; NaN where there is none."""
        assert self.shape is not None, "models of images have one"
        maps = np.full((len(ids), *self.shape), np.nan, np.float32)
        if table is None:
            return maps
        usable = table.filter(pc.is_null(table["error"]))
        rows = {record: n for n, record in enumerate(usable["record_id"].to_pylist())}
        known = [n for n, record in enumerate(ids) if record in rows]
        picked = usable[MAP].take(pa.array([rows[ids[n]] for n in known], pa.int64()))
        flat = picked.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        maps[known] = flat.reshape(len(known), *self.shape)
        return maps
