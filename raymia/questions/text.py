"""Questions about the log-probabilities of a text's tokens, and of its neighbors'."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.evidence import text as layout
from raymia.questions.base import (
    KEY_FIELDS,
    Item,
    Question,
    Setup,
    register_question,
    row_key,
    variants,
)

if TYPE_CHECKING:
    from raymia.models.causal.model import CausalLM, Floats, LogProbs, TokenAnswer

NO_NEIGHBOR = "the neighbor could not be made"
NOT_FINITE = "the model returned a log-probability that is not finite"
NO_TOKENS = "fewer than two tokens, so no token has a context"

ANY_CAUSAL = frozenset({"causal", "endpoint"})
"""Families of models that give log-probabilities of a text."""

TOKEN_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        ("token_ids", pa.list_(pa.int32())),
        ("log_prob", pa.list_(pa.float32())),
        ("mean_log_prob", pa.list_(pa.float32())),
        ("std_log_prob", pa.list_(pa.float32())),
        ("is_top1", pa.list_(pa.bool_())),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
)
SUM_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        ("log_prob_sum", pa.float64()),
        ("token_count", pa.int32()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
)


@register_question
@dataclass(frozen=True)
class TokenQuestion(Question):
    """The log-probability of each token of the record, with the moments of log p (Min-K%++)."""

    name = "tokens"
    families = ANY_CAUSAL
    always_asked = True
    kind: ClassVar[str] = "text.tokens"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = TOKEN_SCHEMA

    def prepare(self, model: CausalLM, items: Sequence[Item]) -> None:
        model.prepare([item.payload for item in items])

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        return token_table(items, model.answer([item.payload for item in items], moments=True))

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.TokenEvidence:
        return layout.token_evidence(table, ids)


@register_question
@dataclass(frozen=True)
class NeighborQuestion(Question):
    """The summed log-probability and the token count of each neighbor.

    ``count`` is not part of the key: the first 10 of 20 neighbors are the same 10. Nor is what the
    audit file calls them, and its place there.
    """

    count: int
    neighbors: str
    place: int = 0
    of: str = ""
    name = "neighbors"
    families = ANY_CAUSAL
    needs = frozenset({"words"})
    cost = "n"
    kind: ClassVar[str] = "text.neighbors"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SUM_SCHEMA
    subject: ClassVar[Literal["record", "neighbor"]] = "neighbor"

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        assert setup.neighbors, "planned where attacks ask about neighbors"
        return [cls(*made, of=name) for name, made in setup.neighbors.items()]

    @property
    def label(self) -> str:
        return f"{self.name}.{self.of}" if self.of else self.name

    @property
    def neighbors_place(self) -> int:
        return self.place

    def indices(self) -> range:
        return variants(self.count)

    def key_parts(self) -> Mapping[str, Any]:
        return {"neighbors": self.neighbors}

    def prepare(self, model: CausalLM, items: Sequence[Item]) -> None:
        model.prepare([item.payload for item in items if item.payload is not None])

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        from raymia.models.causal.beginnings import answer_alike

        made = [item for item in items if item.payload is not None]
        records = [item.record_id for item in made]
        answers = iter(answer_alike(model, [item.payload for item in made], records))
        rows = [
            {**row_key(item), "error": NO_NEIGHBOR}
            if item.payload is None
            else sum_row(item, next(answers))
            for item in items
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.NeighborEvidence:
        return layout.neighbor_evidence(table, ids, self.count)


def error_of(*columns: Floats | None) -> str | None:
    """Why these answers on the tokens of one text are no evidence; None where they are."""
    present = [column for column in columns if column is not None]
    if len(present[0]) == 0:
        return NO_TOKENS
    return None if all(np.isfinite(column).all() for column in present) else NOT_FINITE


def sum_table(
    items: Sequence[Item], answers: Iterable[LogProbs | TokenAnswer], cut: str | None = None
) -> pa.Table:
    """The answers on items, one each, as a table of :data:`SUM_SCHEMA`.

    Parameters
    ----------
    cut : why there is no answer on a record that was cut off; None where there is one.
    """
    rows = [sum_row(item, answer, cut) for item, answer in zip(items, answers, strict=True)]
    return pa.Table.from_pylist(rows, schema=SUM_SCHEMA)


def sum_row(item: Item, answer: LogProbs | TokenAnswer, cut: str | None = None) -> dict[str, Any]:
    """A row of :func:`sum_table`."""
    error = answer.error or (cut if answer.truncated else None) or error_of(answer.log_prob)
    row = {**row_key(item), "truncated": answer.truncated, "error": error}
    if error is None:
        row["log_prob_sum"] = float(answer.log_prob.sum(dtype=np.float64))
        row["token_count"] = len(answer.log_prob)
    return row


def token_table(items: Sequence[Item], answers: Sequence[TokenAnswer]) -> pa.Table:
    """The answers on items, one each, as a table of :data:`TOKEN_SCHEMA`."""
    errors = _errors_of(answers)
    columns: dict[str, Any] = {
        **{name: [row_key(item)[name] for item in items] for name, _ in KEY_FIELDS},
        "truncated": [answer.truncated for answer in answers],
        "error": errors,
    }
    for field in (field for field in TOKEN_SCHEMA if pa.types.is_list(field.type)):
        found = [
            getattr(answer, field.name) if error is None else None
            for answer, error in zip(answers, errors, strict=True)
        ]
        columns[field.name] = _lists(found, field.type)
    return pa.table(columns, TOKEN_SCHEMA)


def _errors_of(answers: Sequence[TokenAnswer]) -> list[str | None]:
    """What each answer says, or else :func:`error_of` it; all are looked at together first."""
    columns = [(a.log_prob, a.mean_log_prob, a.std_log_prob) for a in answers]
    present = [column for own in columns for column in own if column is not None]
    if present and np.isfinite(np.concatenate(present)).all():
        return [a.error or (None if len(a.log_prob) else NO_TOKENS) for a in answers]
    return [a.error or error_of(*own) for a, own in zip(answers, columns, strict=True)]


def _lists(arrays: Sequence[npt.NDArray[Any] | None], kind: pa.ListType) -> pa.Array:
    """One list for each array, null for each None; no value becomes an object on the way."""
    lengths = [0 if array is None else len(array) for array in arrays]
    there = [array for array in arrays if array is not None]
    values = pa.array(np.concatenate(there) if there else [], kind.value_type)
    missing = pa.array([array is None for array in arrays], pa.bool_())
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=missing)
