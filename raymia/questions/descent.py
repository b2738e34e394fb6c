"""The probe that searches an autoencoder's latents for the best reproduction of a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import torch

from raymia.evidence.image import DESCENT_TERMS
from raymia.models.autoencoders.model import Autoencoder
from raymia.questions.base import AboutRecord, Item
from raymia.questions.images import answer_row, chunks, columns_of, decode_pixels, list_schema


@dataclass(frozen=True)
class DescentProbe(AboutRecord):
    """The least squared error that a gradient descent among latents comes to.

    Parameters
    ----------
    steps, rate : of the descent, which is Adam's.
    """

    steps: int
    rate: float
    kind: ClassVar[str] = "image.descent"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = list_schema(DESCENT_TERMS)

    def key_parts(self) -> Mapping[str, Any]:
        return {"steps": self.steps, "rate": self.rate}

    @property
    def passes(self) -> int:
        return self.steps + 1

    def ask(self, model: Autoencoder, items: Sequence[Item]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for chunk in chunks(items, model.batch_images):
            images = decode_pixels(chunk, model)
            found = [model.best_error(image[None], self.steps, self.rate) for image in images]
            answers = columns_of({"squared_error": torch.cat(found)})
            rows += [answer_row(item, answer) for item, answer in zip(chunk, answers, strict=True)]
        return pa.Table.from_pylist(rows, schema=self.schema)
