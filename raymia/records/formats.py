"""File formats: how rows come from one file. What a row means is for others to say.

A row that cannot be had, as one that was cut off, is a row with a reason; an InputError or another
error of :mod:`raymia.storage.refusals` refuses the file.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from raymia.records.json_columns import NOT_TAKEN, rows_of
from raymia.util.encodings import why_not_utf8
from raymia.util.errors import InputError
from raymia.util.strict_json import parse_array, parse_json

MAX_LINE = 2**26
"""Characters of a line of JSONL or text, and of a row of CSV; no more is held of a longer one."""
MAX_ARRAY_BYTES = 2**28
"""Of a JSON file that is one array, which is parsed at once."""
LOOKED_AT = 50
"""Objects of JSON that are asked for their keys; some writers leave out what is null."""
DIALECTS = {".csv": "excel", ".tsv": "excel-tab"}
TEXTS = (*DIALECTS, ".json", ".jsonl", ".ndjson", ".txt")
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
ARROW = (".arrow", ".feather")
_ARROW_FILE = b"ARROW1"
"""How a file of Arrow's begins, and no stream does."""
_BATCH_ROWS = 64
_READ_AHEAD = 2**20
"""Bytes: without it, a whole column of a row group is held in memory."""

TOO_LONG = f"a line of more than {MAX_LINE:,} characters"
CUT_OFF = "the last line, which is cut off"


@dataclass(frozen=True)
class TableRow:
    """Values of one row by the audit file's key that names their column, as ``text_column``.

    Attributes
    ----------
    reason : why there are none; they are None then.
    lacks : of JSON, the columns that the row has no key for, by the same names; their values are
        None, as some writers leave out what is null.
    has : of JSON, all of its keys; of other tables, all columns of the file.
    """

    where: str
    values: Mapping[str, Any]
    reason: str | None = None
    lacks: Mapping[str, str] = field(default_factory=dict)
    has: Sequence[str] = ()

    def why_not(self, *keys: str) -> str | None:
        """Why there is nothing under one of some keys, not even null; None where there is."""
        lacking = (f"no key {self.lacks[key]!r}" for key in keys if key in self.lacks)
        return self.reason or next(lacking, None)


@dataclass(frozen=True)
class Wanted:
    """What is read of the rows of a file.

    Attributes
    ----------
    names : of columns, by the keys of the audit file that give them.
    optional : keys whose columns may be missing; their values are None there.
    """

    names: Mapping[str, str]
    optional: Collection[str] = ()

    @property
    def required(self) -> dict[str, str]:
        return {key: name for key, name in self.names.items() if key not in self.optional}


Reader = Callable[[str, IO[bytes], Wanted], Iterator[TableRow]]


def format_of(path: str) -> str | None:
    """The suffix that says how a file is read, as ".jsonl"; None where it is none of ours."""
    return _suffixes(path)[0]


def read_file(
    path: str, file: IO[bytes], names: Mapping[str, str], optional: Collection[str] = ()
) -> Iterator[TableRow]:
    """Yield the rows of an open file, each with its place (1-based).

    Parameters
    ----------
    path : whose name says the format.
    names, optional : as of :class:`Wanted`.
    """
    suffix, file = _unpacked(path, file)
    return READERS[suffix](path, file, Wanted(names, optional))


def columns_in(path: str, file: IO[bytes]) -> list[str]:
    """The columns of an open file; of JSON, the keys of its first objects, as far as they can be
    read. None of a file whose rows have no names."""
    suffix, file = _unpacked(path, file)
    if suffix == ".txt":
        return []
    if suffix == ".parquet":
        return list(pq.ParquetFile(file).schema_arrow.names)
    if suffix in ARROW:
        return list(_opened_arrow(file)[0].names)
    names: dict[str, None] = {}
    # What cannot be parsed is said by whoever reads the rows.
    with suppress(InputError, csv.Error, ValueError, RecursionError):
        if suffix in DIALECTS:
            return list(_dict_reader(path, file, DIALECTS[suffix]).fieldnames or [])
        for row in islice(READERS[suffix](path, file, Wanted({})), LOOKED_AT):
            names |= dict.fromkeys(row.has)
    return list(names)


def _unpacked(path: str, file: IO[bytes]) -> tuple[str, IO[bytes]]:
    """The suffix that says how an open file is read, and its content."""
    suffix, compression = _suffixes(path)
    assert suffix is not None, "whoever opens a file has looked at its name"
    if compression is not None:
        file = io.BufferedReader(pa.CompressedInputStream(file, compression))
    if suffix in TEXTS:
        file = file if hasattr(file, "peek") else io.BufferedReader(file)  # type: ignore[type-var]
        start = b""
        with suppress(OSError, pa.ArrowException):  # whoever reads the rows says what is damaged
            start = file.peek()
        if (why := why_not_utf8(start)) is not None:
            raise InputError(f"{path}: {why}")
    return suffix, file


def _suffixes(path: str) -> tuple[str | None, str | None]:
    """The suffix of the format, and the compression."""
    name = path.partition("?")[0] if "://" in path else path  # a presigned URL goes on
    pure = PurePosixPath(name.lower())
    compression = COMPRESSED.get(pure.suffix)
    suffix = PurePosixPath(pure.stem).suffix if compression else pure.suffix
    packed = {".parquet", *ARROW}  # within
    known = suffix in READERS and not (compression and suffix in packed)
    return (suffix if known else None), compression


def _row(where: str, wanted: Wanted, row: Mapping[str, Any], has: Sequence[str]) -> TableRow:
    """The row of a table that has these columns."""
    return TableRow(where, {key: row.get(name) for key, name in wanted.names.items()}, has=has)


def _no_row(where: str, wanted: Wanted, reason: str) -> TableRow:
    return TableRow(where, dict.fromkeys(wanted.names), reason)


def _check_columns(where: str, wanted: Wanted, found: Sequence[str]) -> list[str]:
    """The columns to read of those that a file has; it is refused where one is missing."""
    twice = {name for name, times in Counter(found).items() if times > 1}
    for key, name in wanted.names.items():
        if name not in found and key not in wanted.optional:
            raise InputError(
                f"{where}: no column {name!r}; found: {', '.join(map(str, found)) or 'none'}. "
                f"Name the right one as {key} in the audit file"
            )
        if name in twice:
            raise InputError(
                f"{where}: more than one column {name!r}, of which only one can be meant; rename "
                "the others"
            )
    return [name for name in dict.fromkeys(wanted.names.values()) if name in found]


def _lines(text: io.TextIOWrapper) -> Iterator[str | None]:
    """The lines of a text with their ends; None for one that is too long."""
    while line := text.readline(MAX_LINE):
        if len(line) < MAX_LINE or line[-1] in "\r\n":
            yield line
            continue
        while line and line[-1] not in "\r\n":
            line = text.readline(MAX_LINE)
        yield None


def _jsonl(path: str, file: IO[bytes], wanted: Wanted) -> Iterator[TableRow]:
    # Bytes that are no UTF-8 are found line by line: a file may be cut within a character.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")
    objects = _Objects(path, wanted)
    for number, line in enumerate(_lines(text), start=1):
        where = f"{path} line {number}"
        if line is None:
            yield _no_row(where, wanted, TOO_LONG)
        elif line.strip():
            last = line[-1] not in "\r\n" and objects.found > 0
            row = objects.parse(where, line, last=last)
            yield row
    objects.check()


class _Objects:
    """The rows of one file of JSON objects; what is no object refuses the file."""

    def __init__(self, path: str, wanted: Wanted) -> None:
        self.path, self.wanted, self.found = path, wanted, 0
        self.missing = wanted.required
        self.first: list[str] = []
        example = ", ".join(f'"{name}": "..."' for name in self.missing.values())
        self.expected = f"each line should be an object such as {{{example}}}"

    def parse(self, where: str, line: str, *, last: bool) -> TableRow:
        """The row of a line; the last line of a file may be cut off."""
        try:
            line.encode()
            row = parse_json(line, unique_keys=True)
        except UnicodeEncodeError as error:
            if last:
                return _no_row(where, self.wanted, CUT_OFF)
            raise InputError(
                f"{self.path}: not UTF-8 text (at {where.removeprefix(self.path).strip()}, "
                f"character {error.start + 1}); save it as UTF-8"
            ) from None
        except json.JSONDecodeError as error:
            if last:
                return _no_row(where, self.wanted, CUT_OFF)
            raise InputError(
                f"{where}: not valid JSON ({error.msg}, at character {error.pos + 1}); "
                f"{self.expected}"
            ) from None
        except ValueError as error:
            return self.untaken(where, str(error))
        return self.take(where, row)

    def untaken(self, where: str, reason: str) -> TableRow:
        """A row of what is JSON and cannot be taken."""
        return _no_row(where, self.wanted, f"{NOT_TAKEN}: {reason}")

    def take(self, where: str, row: Any) -> TableRow:
        if not isinstance(row, dict):
            raise InputError(f"{where}: {self.expected}, but this one is a {type(row).__name__}")
        self.first = self.first or list(row)
        self.found += 1
        for key in [key for key, name in self.missing.items() if name in row]:
            del self.missing[key]
        names = self.wanted.names
        lacks = {key: name for key, name in names.items() if name not in row}
        values = {key: row.get(name) for key, name in names.items()}
        return TableRow(where, values, lacks=lacks, has=tuple(row))

    def check(self) -> None:
        """Refuse a file none of whose rows has a key; one that lacks it has a null there, which
        some writers leave out."""
        if self.found:
            _check_columns(f"{self.path} line 1", Wanted(self.missing), self.first)


def _json(path: str, file: IO[bytes], wanted: Wanted) -> Iterator[TableRow]:
    """One array of objects; or lines of them, under a name that does not say so."""
    start = file.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()  # type: ignore[attr-defined]
    if not start.startswith(b"["):
        yield from _jsonl(path, file, wanted)
        return
    content = file.read(MAX_ARRAY_BYTES + 1)
    if len(content) > MAX_ARRAY_BYTES:
        raise InputError(
            f"{path}: one JSON array of more than {MAX_ARRAY_BYTES:,} bytes; save it as JSONL, an "
            "object on each line"
        )
    objects = _Objects(path, wanted)
    objects.expected = objects.expected.replace("each line", "each element")
    for number, (row, reason) in enumerate(parse_array(content), start=1):
        where = f"{path} element {number}"
        yield objects.take(where, row) if reason is None else objects.untaken(where, reason)
    objects.check()


def _has_semicolons(header: Sequence[str]) -> bool:
    """Whether a header that was read with commas seems to have semicolons in their place."""
    return len(header) == 1 and ";" in header[0]


def _dict_reader(path: str, file: IO[bytes], dialect: str) -> csv.DictReader[str]:
    csv.field_size_limit(MAX_LINE)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    return csv.DictReader(_short_lines(path, text), dialect=dialect, strict=True)


def _csv(
    path: str, file: IO[bytes], wanted: Wanted, dialect: str = DIALECTS[".csv"]
) -> Iterator[TableRow]:
    reader = _dict_reader(path, file, dialect)
    try:
        names = list(reader.fieldnames or [])
        if (
            _has_semicolons(names)
            and dialect == DIALECTS[".csv"]
            and names[0] not in wanted.names.values()
        ):
            raise InputError(
                f"{path}: its header has semicolons between its fields ({names[0]}), and a CSV is "
                "read with commas; save it with commas, or as JSONL"
            )
        _check_columns(path, wanted, names)
        for number, row in enumerate(reader, start=1):
            where = f"{path} row {number}"
            if None in row:  # under which DictReader puts what has no column
                fields, columns = len(row) - 1 + len(row[None]), len(row) - 1
                raise InputError(
                    f"{where}: {fields} fields under a header of {columns}; put texts that hold "
                    "commas between double quotes"
                )
            yield _row(where, wanted, row, names)
    except csv.Error as error:
        line = reader.reader.line_num
        raise InputError(f"{path} near line {line}: not valid CSV: {error}") from None


def _short_lines(path: str, text: io.TextIOWrapper) -> Iterable[str]:
    for number, line in enumerate(_lines(text), start=1):
        if line is None:
            raise InputError(f"{path} line {number}: {TOO_LONG}; leave it out, or split its text")
        yield line


def _tsv(path: str, file: IO[bytes], wanted: Wanted) -> Iterator[TableRow]:
    return _csv(path, file, wanted, DIALECTS[".tsv"])


def _txt(path: str, file: IO[bytes], wanted: Wanted) -> Iterator[TableRow]:
    """One record a line; an empty line is an empty record, which others set aside."""
    key, *others = wanted.required
    if others:
        raise InputError(
            f"{path}: a .txt has one record on each line and no columns, so none for "
            f"{', '.join(others)}; save it as JSONL or CSV, or leave that key out"
        )
    for number, line in enumerate(_lines(io.TextIOWrapper(file, encoding="utf-8-sig")), start=1):
        where = f"{path} line {number}"
        if line is None:
            yield _no_row(where, wanted, TOO_LONG)
        else:
            yield TableRow(where, {**dict.fromkeys(wanted.names), key: line.removesuffix("\n")})


def _parquet(path: str, file: IO[bytes], wanted: Wanted) -> Iterator[TableRow]:
    parquet = pq.ParquetFile(file, buffer_size=_READ_AHEAD)
    found = parquet.schema_arrow.names
    names = _check_columns(path, wanted, found)
    return _of_batches(path, parquet.iter_batches(_BATCH_ROWS, columns=names), wanted, found)


def _arrow(path: str, file: IO[bytes], wanted: Wanted) -> Iterator[TableRow]:
    """A table of Arrow's, as `datasets` saves it (a stream) or Feather (a file)."""
    schema, batches = _opened_arrow(file)
    names = _check_columns(path, wanted, schema.names)
    return _of_batches(path, _slices(batches, names), wanted, schema.names)


def _slices(batches: Iterable[pa.RecordBatch], names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        chosen = batch.select(names)
        chosen.validate(full=True)  # reading a damaged one would end the process
        for start in range(0, chosen.num_rows, _BATCH_ROWS):
            yield chosen.slice(start, _BATCH_ROWS)


def _of_batches(
    path: str, batches: Iterable[pa.RecordBatch], wanted: Wanted, found: Sequence[str]
) -> Iterator[TableRow]:
    rows = (row for batch in batches for row in rows_of(batch))
    for number, (row, reason) in enumerate(rows, start=1):
        where = f"{path} row {number}"
        yield _no_row(where, wanted, reason) if reason else _row(where, wanted, row, found)


def _opened_arrow(file: IO[bytes]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    begins = file.read(len(_ARROW_FILE))
    file.seek(0)
    if begins == _ARROW_FILE:
        reader = pa.ipc.open_file(file)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    stream = pa.ipc.open_stream(file)
    return stream.schema, iter(stream)


READERS: Mapping[str, Reader] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".txt": _txt,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
