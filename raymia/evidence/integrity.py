"""Whether a part of evidence is what was written: its content, its key, and values that can be.

A part carries, in the metadata of its Parquet file, the key that it belongs to, how many rows it
has, and a hash of each column's values. The hash is of the values and not of the file's bytes, so
it is the same however Parquet encodes them, and whoever reads some columns verifies these alone.
Parts of earlier versions, and those that another program has written anew, carry nothing of this
and are read as they are; a run says how many it has read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.util.hashing import DIGEST_HEX_CHARS

KEY, ROWS, COLUMNS = b"raymia.key", b"raymia.rows", b"raymia.columns"
UNPROVEN = b"raymia.unproven"
"""There in a part that was merged from parts of which one carried no proof."""

ROW_KEY = ("record_id", "neighbor")
NEVER_POSITIVE = {"log_prob", "mean_log_prob", "log_prob_sum"}
NEVER_NEGATIVE = {"std_log_prob", "token_count", "l2", "l4", "low_l2", "low_l4"}
OWN_LENGTH = {"map"}
"""Lists that are not one value for each token, timestep or draw, as the others of a row are."""
ROUNDING = 1e-3
"""How far beyond 0 rounding may take a logarithm of a probability."""


def proof_of(table: pa.Table, key: str, is_proven: bool = True) -> dict[str, str]:
    """What proves a table later, for its file's metadata.

    Parameters
    ----------
    key : hash of the key that the rows belong to.
    is_proven : whether the rows are known to be those that were answered.
    """
    columns = {name: column_digest(table[name]) for name in table.column_names}
    proof = {KEY: key, ROWS: str(table.num_rows), COLUMNS: json.dumps(columns)}
    if not is_proven:
        proof[UNPROVEN] = "yes"
    return {name.decode(): value for name, value in proof.items()}


def is_signed(schema: pa.Schema) -> bool:
    """Whether a table of this schema carries anything that could prove it."""
    return any(name in (schema.metadata or {}) for name in (KEY, ROWS, COLUMNS))


def is_proven(schema: pa.Schema) -> bool:
    """Whether what a table of this schema carries proves it since its rows were answered."""
    return is_signed(schema) and UNPROVEN not in (schema.metadata or {})


_SCHEMAS: dict[str, pa.Schema] = {}


def learn_schema(kind: str, schema: pa.Schema) -> None:
    """Make known which columns the evidence of a kind has."""
    _SCHEMAS[kind] = schema


def why_other_schema(table: pa.Table, kind: str, columns: Sequence[str] | None) -> str | None:
    """Which column of a table is not as in evidence of its kind; None where all are, or where
    nobody knows the kind.

    Parameters
    ----------
    columns : those that were asked for; None for all.
    """
    schema = _SCHEMAS.get(kind)
    wanted = columns or (ROW_KEY if schema is None else schema.names)
    if lacking := [name for name in wanted if name not in table.column_names]:
        return f"it has no column {', '.join(lacking)}"
    known = {} if schema is None else {field.name: field.type for field in schema}
    for column in table.schema:
        expected = known.get(column.name, column.type)
        if _name(column.type) != _name(expected):
            return f"its column {column.name} is of {column.type}, and {expected} is expected"
    return None


def why_changed(table: pa.Table, key: str) -> str | None:
    """What proves that a table, or the columns of it that were read, is not what was written.

    Returns
    -------
    None where nothing does, and for parts of earlier versions, which carry no proof.
    """
    found = table.schema.metadata or {}
    if not is_signed(table.schema):
        return None
    try:
        rows, hashes = int(found[ROWS]), json.loads(found[COLUMNS])
        if (owner := found[KEY].decode()) != key:
            return f"it belongs to another key: {owner}"
        expected = {name: hashes[name] for name in table.column_names}
    except (KeyError, TypeError, ValueError) as error:
        return f"what should prove its content is damaged: {type(error).__name__}: {error}"
    if rows != table.num_rows:
        return f"it has {table.num_rows:,} rows, and {rows:,} were written"
    changed = [name for name in table.column_names if column_digest(table[name]) != expected[name]]
    if changed:
        return f"its content changed after it was written: column {', '.join(changed)}"
    return None


def column_digest(column: pa.ChunkedArray | pa.Array) -> str:
    """Hash the values of a column: its type, which are null, and the others; not how they lie in
    memory."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    hashed = hashlib.sha256(_name(column.type).encode())
    _take_in(hashed.update, whole)
    return hashed.hexdigest()[:DIGEST_HEX_CHARS]


def _name(kind: pa.DataType) -> str:
    """A type's name, without that of its values' field, which Parquet changes."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return f"list of {_name(kind.value_type)}" if is_list else str(kind)


def _take_in(update: Callable[[bytes | memoryview], None], values: pa.Array) -> None:
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    update(len(values).to_bytes(8, "little"))
    update(np.packbits(valid).tobytes() if values.null_count else b"all")
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        update(_lengths(values).tobytes())
        _take_in(update, values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        present = values.filter(values.is_valid()).cast(pa.large_binary())
        _, offset_buffer, data = present.buffers()
        ends = np.frombuffer(offset_buffer or b"", np.int64)
        ends = (
            ends[present.offset : present.offset + len(present) + 1] if len(present) else ends[:0]
        )
        update(np.diff(ends).tobytes())
        if len(present) and data is not None:
            update(memoryview(data)[ends[0] : ends[-1]])
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        present = values.filter(values.is_valid()) if values.null_count else values
        update(np.ascontiguousarray(present.to_numpy(zero_copy_only=False)).tobytes())
    else:
        raise TypeError(f"evidence has columns of lists, texts and numbers, but got {kind}")


def why_impossible(table: pa.Table) -> str | None:
    """The first value of a table that no model can have answered; None where there is none.

    A probability has no logarithm above 0, a distance is not below 0, an answer without an error is
    a finite number, and the lists of a row have one length.
    """
    failed: npt.NDArray[np.bool_] | None = None
    if "error" in table.column_names:
        failed = table["error"].is_valid().to_numpy().astype(np.bool_)
    lengths: dict[str, npt.NDArray[np.int64]] = {}
    for name in table.column_names:
        values = table[name].combine_chunks()
        rows = np.arange(len(values))
        if pa.types.is_list(values.type):
            sizes = _lengths(values)
            if name not in OWN_LENGTH:
                lengths[name] = np.where(
                    values.is_valid().to_numpy(zero_copy_only=False), sizes, -1
                )
            rows, values = np.repeat(rows, sizes), values.flatten()
        if not (pa.types.is_floating(values.type) or name in NEVER_NEGATIVE):
            continue
        given = values.is_valid().to_numpy(zero_copy_only=False)
        numbers = pc.fill_null(values, 0).to_numpy(zero_copy_only=False).astype(np.float64)
        checks: list[tuple[npt.NDArray[np.bool_], str]] = []
        if failed is not None:
            checks.append(
                (~np.isfinite(numbers) & ~failed[rows], "is not finite, without an error")
            )
        if name in NEVER_POSITIVE:
            checks.append((numbers > ROUNDING, "is above 0"))
        if name in NEVER_NEGATIVE:
            checks.append((numbers < 0, "is below 0"))
        for wrong, what in checks:
            if (place := _first(wrong & given)) is not None:
                return f"{_row(table, rows[place])}: {name} {numbers[place]:g} {what}"
    return _first_unequal(table, lengths)


def _first_unequal(table: pa.Table, lengths: dict[str, npt.NDArray[np.int64]]) -> str | None:
    names = list(lengths)
    for one, other in itertools.pairwise(names):
        first, second = lengths[one], lengths[other]
        place = _first((first != second) & (first >= 0) & (second >= 0))
        if place is not None:
            return (
                f"{_row(table, place)}: {one} has {first[place]:,} values and {other} "
                f"{second[place]:,}"
            )
    return None


def _row(table: pa.Table, place: int) -> str:
    if "record_id" not in table.column_names:
        return f"row {place}"
    return f"record {table['record_id'][int(place)].as_py()}"


def _first(wrong: npt.NDArray[np.bool_]) -> int | None:
    places: Sequence[Any] = np.flatnonzero(wrong)[:1].tolist()
    return int(places[0]) if places else None


def _lengths(values: pa.Array) -> npt.NDArray[np.int64]:
    """Of lists, [n]; 0 for null."""
    lengths: npt.NDArray[np.int64] = (
        pc.fill_null(pc.list_value_length(values), 0)
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
    )
    return lengths
