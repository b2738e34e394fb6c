"""Rows of JSONL, CSV and Parquet files, each with its place, on any fsspec filesystem."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raymia.storage.files import opened
from raymia.util.errors import InputError

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_BATCH_ROWS = 64
_READ_AHEAD = 2**20
"""Bytes: without it, a whole column of a row group is held in memory."""


@dataclass(frozen=True)
class TableRow:
    """Values of one row by the audit file's key that names their column, as ``text_column``."""

    where: str
    values: Mapping[str, Any]


def read_rows(path: str, columns: Mapping[str, str | None]) -> Iterator[TableRow]:
    """Yield the rows of a JSONL, CSV or Parquet file, each with its place (1-based).

    Parameters
    ----------
    columns : column names by the key of the audit file that gives them; a key whose column is None
        is left out.

    Raises
    ------
    InputError
        If the file is missing, of another format, malformed, or without one of the columns.
    """
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".csv": _csv, ".parquet": _parquet}
    suffix = PurePosixPath(path.partition("?")[0]).suffix.lower()  # a presigned URL goes on
    if suffix not in readers:
        raise InputError(
            f"{path}: records are read from files whose names end in .jsonl, .csv or .parquet"
        )
    wanted = {key: name for key, name in columns.items() if name is not None}
    with refusals(path, suffix), opened(path) as file:
        yield from readers[suffix](path, file, wanted)


@contextmanager
def refusals(path: str, kind: str) -> Iterator[None]:
    """Turn what goes wrong while a path is opened or read into an InputError that names it.

    Parameters
    ----------
    kind : of the file, as ".csv".
    """
    try:
        yield
    except FileNotFoundError:
        hint = "" if "://" in path else "; relative paths start at the audit file's folder"
        raise InputError(f"{path}: no such file{hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    except pa.ArrowInvalid as error:
        raise InputError(f"{path}: not a readable {kind} file: {error}") from None
    except (OSError, ImportError, ValueError) as error:
        raise InputError(f"{path}: cannot be opened: {error}") from None


def _check_columns(where: str, wanted: Mapping[str, str], found: list[str]) -> None:
    for key, name in wanted.items():
        if name not in found:
            raise InputError(
                f"{where}: no column {name!r}; found: {', '.join(map(str, found)) or 'none'}. "
                f"Name the right one as {key} in the audit file"
            )


def _jsonl(path: str, file: Any, wanted: Mapping[str, str]) -> Iterator[TableRow]:
    for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        example = ", ".join(f'"{name}": "..."' for name in wanted.values())
        expected = f"each line should be an object such as {{{example}}}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: not valid JSON ({error.msg}, at character {error.pos + 1}); {expected}"
            ) from None
        if not isinstance(row, dict):
            raise InputError(f"{where}: {expected}, but this one is a {type(row).__name__}")
        _check_columns(where, wanted, list(row))
        yield TableRow(where, {key: row[name] for key, name in wanted.items()})


def _csv(path: str, file: Any, wanted: Mapping[str, str]) -> Iterator[TableRow]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        _check_columns(path, wanted, list(reader.fieldnames or []))
        for number, row in enumerate(reader, start=1):
            where = f"{path} row {number}"
            if None in row:  # under which DictReader puts what has no column
                fields, columns = len(row) - 1 + len(row[None]), len(row) - 1
                raise InputError(
                    f"{where}: {fields} fields under a header of {columns}; put texts that hold "
                    "commas between double quotes"
                )
            yield TableRow(where, {key: row[name] for key, name in wanted.items()})
    except csv.Error as error:
        line = reader.reader.line_num
        raise InputError(f"{path} near line {line}: not valid CSV: {error}") from None


def _parquet(path: str, file: Any, wanted: Mapping[str, str]) -> Iterator[TableRow]:
    parquet = pq.ParquetFile(file, buffer_size=_READ_AHEAD)
    _check_columns(path, wanted, parquet.schema_arrow.names)
    names = list(dict.fromkeys(wanted.values()))
    number = 0
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=names):
        for row in batch.to_pylist():
            number += 1
            values = {key: row[name] for key, name in wanted.items()}
            yield TableRow(f"{path} row {number}", values)
