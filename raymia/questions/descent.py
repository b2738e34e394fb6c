"""The question that searches an autoencoder's latents for the best reproduction of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from raymia.evidence.image import DESCENT_TERMS
from raymia.questions.base import Item, Question, Setup, register_question
from raymia.questions.images import ImageQuestion, list_schema
from raymia.spec import AuditSpec, DescentSpec

if TYPE_CHECKING:
    from raymia.models.autoencoders.model import Autoencoder


@register_question
@dataclass(frozen=True)
class DescentQuestion(ImageQuestion):
    """The least squared error that a gradient descent among latents comes to.

    Parameters
    ----------
    steps, rate : of the descent, which is Adam's.
    """

    steps: int
    rate: float
    name = "descent"
    families = frozenset({"autoencoder"})
    needs = frozenset({"weights"})
    access = "weights"
    cost = "d backward"
    section = "descent"
    columns = DESCENT_TERMS
    kind: ClassVar[str] = "image.descent"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DESCENT_TERMS)

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.descent or DescentSpec()
        return [cls(spec.steps, spec.rate)]

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return spec.probes.descent is None

    def key_parts(self) -> Mapping[str, Any]:
        return {"steps": self.steps, "rate": self.rate}

    @property
    def passes(self) -> int:
        return self.steps + 1

    def ask(self, model: Autoencoder, items: Sequence[Item]) -> pa.Table:
        import torch

        from raymia.questions.asking.images import answer_row, chunks, columns_of, decode_pixels

        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            images = decode_pixels(chunk, model)
            found = [model.best_error(image[None], self.steps, self.rate) for image in images]
            answers = columns_of({"squared_error": torch.cat(found)})
            rows += [answer_row(item, answer) for item, answer in zip(chunk, answers, strict=True)]
        return pa.Table.from_pylist(rows, schema=self.schema)
