"""The question for the noise that a denoiser sees on average over draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from raymia.evidence.image import DISTANCES
from raymia.questions.base import RECORD, Item, Question, Setup, register_question
from raymia.questions.images import ImageQuestion, list_schema
from raymia.spec import AuditSpec, AveragedSpec
from raymia.spec.images import Step
from raymia.util.draws import normals, stream_key

if TYPE_CHECKING:
    from torch import Tensor

    from raymia.models.denoisers.model import Denoiser
    from raymia.questions.asking.images import Predict


@register_question
@dataclass(frozen=True)
class AveragedQuestion(ImageQuestion):
    """The noise that the model sees in x_t, averaged over draws before its size is taken (SimA-MC).

    Each draw is added and taken away, so that what is added is 0 on average and what is left is
    what the model itself adds. Target, references and shadows are given the same draws.

    Parameters
    ----------
    timesteps : where it is asked.
    pairs : of draws at each timestep, a draw and its opposite.
    """

    timesteps: tuple[Step, ...]
    pairs: int
    seed: int
    name = "averaged"
    families = frozenset({"denoiser"})
    cost = "a"
    section = "averaged"
    kind: ClassVar[str] = "image.averaged"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DISTANCES)

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.averaged or AveragedSpec()
        return [cls(tuple(spec.timesteps), spec.pairs, setup.seed)]

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return spec.probes.averaged is None

    @property
    def grid_steps(self) -> tuple[Step, ...]:
        return self.timesteps

    def key_parts(self) -> Mapping[str, Any]:
        return {"timesteps": list(self.timesteps), "pairs": self.pairs, "seed": self.seed}

    @property
    def passes(self) -> int:
        return len(self.timesteps) * 2 * self.pairs

    def ask(self, model: Denoiser, items: Sequence[Item]) -> pa.Table:
        import torch

        from raymia.questions.asking.images import ask_of_latents, distances

        def noise_of(asked: Sequence[Item], t: Step, pair: int) -> Tensor:
            keys = [stream_key(self.seed, "noise", i.record_id, RECORD, t, pair) for i in asked]
            drawn = normals(torch.tensor(keys).to(model.device), math.prod(model.latent_shape))
            return drawn.reshape(len(asked), *model.latent_shape)

        def answer(clean: Tensor, asked: Sequence[Item], predict: Predict) -> dict[str, Tensor]:
            found = []
            for t in self.timesteps:
                steps, total = model.at([t] * len(clean)), torch.zeros_like(clean)
                for pair in range(self.pairs):
                    noise = noise_of(asked, t, pair)
                    for signed in (noise, -noise):
                        total += predict(model.path.add_noise(clean, signed, steps), t)
                found.append(distances(total / (2 * self.pairs)))
            return {c: torch.stack([d[c] for d in found], dim=1) for c in DISTANCES}

        return ask_of_latents(model, items, answer, self.schema)
