"""Which columns a table has, found from the beginning of its first file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

import pyarrow.parquet as pq

from raymia.records.formats import MAX_ARRAY_BYTES, MAX_LINE, format_of, unpacked
from raymia.records.tables import is_table
from raymia.storage.files import opened
from raymia.storage.refusals import refusals
from raymia.storage.shards import files_of, is_one_file

LOOKED_AT = 50
"""Objects of JSON; some writers leave out what is null."""


def column_names(path: str) -> list[str]:
    """The columns of a table, as :func:`raymia.records.tables.read_rows` reads it; none where its
    rows have no names, or it cannot be read, which whoever reads the rows says.

    Raises
    ------
    InputError
        If it cannot be opened.
    """
    with refusals(path, "folder"):
        files = [path] if is_one_file(path, is_table(path)) else files_of(path)[1]
    first = next((file for file in files if is_table(file)), None)
    if first is None:
        return []
    with refusals(first, format_of(first) or "table"), opened(first) as file:
        suffix, content = unpacked(first, file)
        if suffix == ".parquet":
            return list(pq.ParquetFile(content).schema_arrow.names)
        if suffix in (".csv", ".tsv"):
            text = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
            header = csv.reader(text, dialect="excel" if suffix == ".csv" else "excel-tab")
            return list(next(header, []))
        if suffix == ".txt":
            return []
        rows = islice(_objects(content), LOOKED_AT)
        return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row))


def _objects(file: IO[bytes]) -> Iterator[Any]:
    """The elements of an array, or the objects of lines, as far as they can be read."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace")
    try:
        beginning = text.read(1)
        while beginning.isspace():
            beginning = text.read(1)
        if beginning == "[":
            yield from json.loads("[" + text.read(MAX_ARRAY_BYTES))
            return
        line = beginning + text.readline(MAX_LINE)
        while line:
            if line.strip():
                yield json.loads(line)
            line = text.readline(MAX_LINE)
    except (ValueError, RecursionError):
        return
