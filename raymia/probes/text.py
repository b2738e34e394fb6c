"""Probes for causal language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from raymia.models.causal_lm import CausalLM, TokenAnswer
from raymia.probes.base import RECORD, Item

NO_NEIGHBOR = "the neighbor could not be made"
NOT_FINITE = "the model returned a log-probability that is not finite"
NO_TOKENS = "fewer than two tokens, so no token has a context"

_KEY_FIELDS = [("record_id", pa.string()), ("neighbor", pa.int16())]
TOKEN_SCHEMA = pa.schema(
    [
        *_KEY_FIELDS,
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
        *_KEY_FIELDS,
        ("log_prob_sum", pa.float64()),
        ("token_count", pa.int32()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class TokenProbe:
    """The log-probability of each token of the record, with the moments of log p (Min-K%++)."""

    kind: ClassVar[str] = "text.tokens"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = TOKEN_SCHEMA
    subject: ClassVar[Literal["record", "neighbor"]] = "record"
    makes_neighbors: ClassVar[bool] = False

    def indices(self) -> range:
        return range(RECORD, RECORD + 1)

    def key_parts(self) -> Mapping[str, Any]:
        return {}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        answers = model.answer([item.payload for item in items], moments=True)
        return pa.Table.from_pylist(
            [_token_row(item, a) for item, a in zip(items, answers, strict=True)],
            schema=self.schema,
        )


@dataclass(frozen=True)
class NeighborProbe:
    """The summed log-probability and the token count of each neighbor.

    ``count`` is not part of the key: the first 10 of 20 neighbors are the same 10.
    """

    count: int
    neighbors: str
    kind: ClassVar[str] = "text.neighbors"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SUM_SCHEMA
    subject: ClassVar[Literal["record", "neighbor"]] = "neighbor"
    makes_neighbors: ClassVar[bool] = False

    def indices(self) -> range:
        return range(RECORD + 1, RECORD + 1 + self.count)

    def key_parts(self) -> Mapping[str, Any]:
        return {"neighbors": self.neighbors}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        made = [item for item in items if item.payload is not None]
        answers = iter(model.answer([item.payload for item in made], moments=False))
        rows = [
            {**_key(item), "error": NO_NEIGHBOR}
            if item.payload is None
            else _sum_row(item, next(answers))
            for item in items
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)


def _key(item: Item) -> dict[str, Any]:
    return {"record_id": item.record_id, "neighbor": item.neighbor}


def _error(answer: TokenAnswer) -> str | None:
    columns = (answer.log_prob, answer.mean_log_prob, answer.std_log_prob)
    if answer.error is not None:
        return answer.error
    if len(answer.log_prob) == 0:
        return NO_TOKENS
    if not all(np.isfinite(column).all() for column in columns if column is not None):
        return NOT_FINITE
    return None


def _token_row(item: Item, answer: TokenAnswer) -> dict[str, Any]:
    row = {**_key(item), "truncated": answer.truncated, "error": _error(answer)}
    if row["error"] is None:
        for column in ("token_ids", "log_prob", "mean_log_prob", "std_log_prob", "is_top1"):
            row[column] = getattr(answer, column)
    return row


def _sum_row(item: Item, answer: TokenAnswer) -> dict[str, Any]:
    row = {**_key(item), "truncated": answer.truncated, "error": _error(answer)}
    if row["error"] is None:
        row["log_prob_sum"] = float(answer.log_prob.sum(dtype=np.float64))
        row["token_count"] = len(answer.log_prob)
    return row
