"""Neighbors of records that are more than a text: what is scored is changed, and nothing else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pyarrow as pa

from raymia.models.causal.scored_parts import changed_parts, scored_parts
from raymia.models.causal.training import Training
from raymia.neighbors.drafts import NEIGHBOR_SCHEMA, NOTHING_TO_MASK, neighbor_row
from raymia.questions.base import Item, Question


@dataclass(frozen=True)
class MakesNeighbors(Question):
    """A question whose answers are neighbors of records.

    Attributes
    ----------
    training : which parts of a record are scored; None where records are texts.
    place : among the names of neighbors in the audit file.
    """

    training: Training | None = field(default=None, kw_only=True)
    place: int = field(default=0, kw_only=True)
    schema: ClassVar[pa.Schema] = NEIGHBOR_SCHEMA
    makes_neighbors: ClassVar[bool] = True

    @property
    def neighbors_place(self) -> int:
        return self.place

    @abstractmethod
    def make(self, model: Any, items: Sequence[Item]) -> pa.Table:
        """Make each item's neighbor from its text; one row per item, in input order."""

    @abstractmethod
    def own_key_parts(self) -> Mapping[str, Any]:
        """Everything that changes the neighbor of a text but the model and the code."""

    def key_parts(self) -> Mapping[str, Any]:
        own = self.own_key_parts()
        return own if self.training is None else {**own, "parts": self.training.changed_parts}

    def ask(self, model: Any, items: Sequence[Item]) -> pa.Table:
        if self.training is None:
            return self.make(model, items)
        parts = [list(self._parts(item)) for item in items]
        made = iter(self.make(model, [p for own in parts for p in own]).to_pylist())
        rows = [
            self._whole(item, [next(made) for _ in own])
            for item, own in zip(items, parts, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _parts(self, item: Item) -> Iterator[Item]:
        """An item for each part that is scored; one that is alone keeps the record's draws."""
        texts = scored_parts(item.payload, self.training)
        for number, text in enumerate(texts):
            name = item.record_id if len(texts) == 1 else f"{item.record_id} part {number}"
            yield replace(item, record_id=name, payload=text)

    def _whole(self, item: Item, made: list[dict[str, Any]]) -> dict[str, Any]:
        """The neighbor of a record; a part that cannot be changed stays as it is."""
        changed = [row for row in made if row["error"] is None]
        attempts = max((row["attempts"] for row in made), default=0)
        if not changed:
            error = made[0]["error"] if made else NOTHING_TO_MASK
            return neighbor_row(item, attempts=attempts, error=error)
        rows = iter(made)

        def put(text: str) -> str:
            new = next(rows)["payload"]
            return text if new is None else str(new)

        sizes = [len(row["payload"]) for row in changed]
        weighted = sum(n * row["masked_share"] for n, row in zip(sizes, changed, strict=True))
        payload = changed_parts(item.payload, self.training, put)
        return neighbor_row(item, payload, weighted / sum(sizes), attempts)
