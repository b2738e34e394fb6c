"""Rows of a table whose columns may be of Arrow's JSON type.

The library `datasets` gives it to nested values that have no one schema, as the arguments of tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from raymia.util.strict_json import parse_json

JSON = "arrow.json"


NOT_TAKEN = "JSON that cannot be taken"


def rows_of(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The rows of a batch with what is kept as JSON parsed, each with the reason why it cannot be
    taken, where one of its cells cannot."""
    held = [field for field in batch.schema if _holds_json(field.type)]
    for row in batch.to_pylist():
        reason = None
        for field in held:
            try:
                row[field.name] = _parsed(row[field.name], field.type)
            except ValueError as error:
                reason = f"{field.name}: {NOT_TAKEN}: {error}"
        yield row, reason


def _is_json(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == JSON


def _holds_json(kind: pa.DataType) -> bool:
    return _is_json(kind) or any(_holds_json(kind.field(n).type) for n in range(kind.num_fields))


def _parsed(value: Any, kind: pa.DataType) -> Any:
    if value is None or not _holds_json(kind):
        return value
    if _is_json(kind):
        return parse_json(value)
    if isinstance(kind, pa.StructType):
        return {field.name: _parsed(value[field.name], field.type) for field in kind}
    if isinstance(value, list):
        return [_parsed(one, kind.field(0).type) for one in value]
    return value
