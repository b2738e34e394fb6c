"""Answers to any question, drawn from what its columns may hold, alike for members and others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

from raymia.evidence.integrity import NEVER_POSITIVE, ROW_KEY
from raymia.questions.base import Question, Setup
from raymia.questions.images import ImageQuestion
from raymia.questions.registry import model_evidence, questions_for
from raymia.spec import AuditSpec

TOKENS = 10
"""How many tokens what is drawn for a whole text is of."""
FILES: dict[str, dict[str, Any]] = {
    "text": {
        "records": {"members": ["x"]},
        "probes": {"swaps": {"count": 3}, "noise": {"pairs": 3}, "samples": {"count": 2}},
    },
    "image": {
        "records": {"kind": "image", "members": ["x"]},
        "neighbors": {"kind": "auto", "among": ["crop", "blur"]},
    },
}


def drawn(
    records: str, family: str, names: Collection[str], count: int, missing: int | None, seed: int
) -> dict[str, Any]:
    """What attacks read of the answers to questions, by their names.

    Parameters
    ----------
    names : of questions; those that the family cannot answer are left out.
    missing : the record without an answer.
    """
    file = {**FILES[records], "targets": [{"name": "t", "model": "m"}]}
    setup = Setup(AuditSpec.model_validate(file), family, neighbors={"": (4, "a key", 0)})
    draws = np.random.default_rng((seed, 2))
    ids = [f"r{i}" for i in range(count)]
    answers = [
        (label, question, _table(question, ids, missing, draws))
        for label, question in questions_for(records, setup, names)
        if question.name in names
    ]
    return model_evidence(records, answers, ids).read_by(names)  # type: ignore[no-any-return]


def _table(
    question: Question, ids: list[str], missing: int | None, draws: np.random.Generator
) -> pa.Table:
    length = TOKENS
    if isinstance(question, ImageQuestion):
        length = len(question.grid_steps) * question.grid_draws
    columns = [field for field in question.schema if field.name not in (*ROW_KEY, "error")]
    rows = []
    for place, record in enumerate(ids):
        for index in question.indices():
            row: dict[str, Any] = {"record_id": record, "neighbor": index}
            if place == missing:
                row["error"] = "no answer"
            else:
                row |= {field.name: _value(field, length, draws) for field in columns}
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=question.schema)


def _value(field: pa.Field, length: int, draws: np.random.Generator) -> Any:
    """A list is of one value for each token, timestep or draw; what is no list is of the whole."""
    if pa.types.is_list(field.type):
        inner = pa.field(field.name, field.type.value_type)
        return [_value(inner, 1, draws) for _ in range(length)]
    if pa.types.is_floating(field.type):
        value = draws.uniform(3, 4) * length
        return -value if field.name in NEVER_POSITIVE else value
    if pa.types.is_integer(field.type):
        return length
    return "some words" if pa.types.is_string(field.type) else False
