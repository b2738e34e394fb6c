"""Putting a question to a model, so that one record cannot fail it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pyarrow as pa

from raymia.questions.base import KEY_FIELDS, Item, Question, row_key
from raymia.questions.harmless import harmless
from raymia.util.errors import RaymiaError
from raymia.util.reasons import CAME

LONGEST_ERROR = 300
"""Letters of an error that is kept as a record's answer."""


def put(
    question: Question,
    model: Any,
    items: Sequence[Item],
    has_answered: Callable[[], bool] = lambda: False,
) -> pa.Table:
    """Put a question, and look at the answers before they are stored.

    Where the model fails on the items, they are halved until the records that it fails on are
    found; the error is the answer on these. It is raised where it is of no single record: a lack of
    memory, a device that is gone, what raymia itself refuses, and where a model that has never
    answered the question fails on each of several records, whatever it says of them, and on one of
    their form that no sound model fails on.

    Parameters
    ----------
    has_answered : whether the model has ever answered the question about any record; asked only
        where it fails on all.

    Raises
    ------
    RaymiaError
        If the answers have other columns than the question says, or are not one for each item.
    """
    records = [list(group) for _, group in groupby(items, key=lambda item: item.record_id)]
    tables, failed = _ask(question, model, records)
    has_failed = len(failed) == len(records) > 1
    if has_failed and not has_answered() and not _is_sound(question, model, records[0]):
        raise failed[0]
    for table in tables:
        if table.schema != question.schema:
            raise RaymiaError(
                f"the question {question.kind} should be answered with the columns "
                f"{_columns(question.schema)}, but was with {_columns(table.schema)}"
            )
    answers = pa.concat_tables(tables)
    wanted = [(item.record_id, item.neighbor) for item in items]
    found = [*zip(*(answers[name].to_pylist() for name, _ in KEY_FIELDS), strict=True)]
    if found != wanted and sorted(found) != sorted(wanted):
        raise RaymiaError(
            f"the question {question.kind} should be answered with one row for each of "
            f"{len(wanted)} items, but was with {len(found)} rows, of which "
            f"{len({*found} & {*wanted})} are about one of them"
        )
    return answers


def _ask(
    question: Question, model: Any, records: Sequence[Sequence[Item]]
) -> tuple[list[pa.Table], list[Exception]]:
    """The answers in tables, and an error for each record that the model fails on."""
    items = [item for record in records for item in record]
    try:
        return [question.ask(model, items)], []
    except Exception as error:
        if _is_of_no_record(error):
            raise
        if len(records) > 1:
            half = len(records) // 2
            tables, failed = _ask(question, model, records[:half])
            others, more = _ask(question, model, records[half:])
            return tables + others, failed + more
        rows = [{**row_key(item), "error": _said(error)} for item in items]
        return [pa.Table.from_pylist(rows, schema=question.schema)], [error]


def _is_sound(question: Question, model: Any, record: Sequence[Item]) -> bool:
    """Whether a model answers the question about a harmless record in the place of another."""
    items = [replace(item, payload=harmless(item.payload)) for item in record]
    try:
        return bool(question.ask(model, items)["error"].null_count)
    except Exception as error:
        if _is_of_no_record(error):
            raise
        return False


def _said(error: Exception) -> str:
    return f"{type(error).__name__}{CAME}{error}"[:LONGEST_ERROR]


def _is_of_no_record(error: Exception) -> bool:
    from raymia.models.batching import is_lost_device, is_out_of_memory

    return isinstance(error, RaymiaError) or is_out_of_memory(error) or is_lost_device(error)


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} ({column.type})" for column in schema)
