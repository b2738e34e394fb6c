"""Rows of a table whose columns may be of Arrow's JSON type.

The library `datasets` gives it to nested values that have no one schema, as the arguments of tools.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

JSON = "arrow.json"


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch, with what is kept as JSON parsed."""
    rows: list[dict[str, Any]] = batch.to_pylist()
    for field in batch.schema:
        if _holds_json(field.type):
            for row in rows:
                row[field.name] = _parsed(row[field.name], field.type)
    return rows


def _is_json(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == JSON


def _holds_json(kind: pa.DataType) -> bool:
    return _is_json(kind) or any(_holds_json(kind.field(n).type) for n in range(kind.num_fields))


def _parsed(value: Any, kind: pa.DataType) -> Any:
    if value is None or not _holds_json(kind):
        return value
    if _is_json(kind):
        return json.loads(value)
    if isinstance(kind, pa.StructType):
        return {field.name: _parsed(value[field.name], field.type) for field in kind}
    if isinstance(value, list):
        return [_parsed(one, kind.field(0).type) for one in value]
    return value
