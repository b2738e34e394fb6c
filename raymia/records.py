"""Reading records: content ids, validation, duplicates.

A record that cannot be used is set aside with its place and the reason, never lost; a file that
cannot be used is refused.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from raymia.errors import InputError
from raymia.hashing import digest_bytes
from raymia.spec import TextRecordsSpec

SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("payload", pa.string()),
        ("is_member", pa.bool_()),
        ("group", pa.string()),
    ]
)
"""One row per record: content id, text, membership (null for candidates), and the group that it
belongs to (null for none)."""

EMPTY = "empty or white space only"
NOT_TEXT = "not a text"
NOT_UNICODE = "not valid Unicode: a surrogate without its pair"
REPEATED = "a repetition of"
CONTRADICTION = "given as member and as non-member"


@dataclass(frozen=True)
class SetAside:
    """A record that is not scored, where it stands and why."""

    where: str
    record_id: str | None
    reason: str


@dataclass(frozen=True)
class RecordSet:
    """The usable records of an audit and those set aside."""

    table: pa.Table
    set_aside: list[SetAside] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return list(self.table["record_id"].to_pylist())

    def count(self, is_member: bool | None) -> int:
        return int(self.table["is_member"].to_pylist().count(is_member))


@dataclass(frozen=True)
class _Row:
    where: str
    text: Any
    group: Any = None


def record_id(payload: str) -> str:
    """The id of a text record: a hash of its content."""
    return digest_bytes(payload.encode())


def is_unicode(text: str) -> bool:
    """Whether a text has no surrogate without its pair, as JSON may spell one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_records(spec: TextRecordsSpec) -> RecordSet:
    """Read members, non-members and candidates.

    A text that occurs again within its class is set aside as a repetition; one that is both member
    and non-member is set aside everywhere. A candidate that is also a member or a non-member is set
    aside as a candidate.

    Raises
    ------
    InputError
        For files that are missing, unreadable or without the text column (all of them together),
        or when a class has files but not one usable record.
    """
    problems: list[str] = []
    aside: list[SetAside] = []
    kept: dict[bool | None, dict[str, _Row]] = {}
    classes = ((True, spec.members), (False, spec.non_members), (None, spec.candidates))
    for is_member, paths in classes:
        kept[is_member] = {}
        for path in paths:
            try:
                rows = read_texts(path, spec.text_column, spec.group_column)
                _keep(rows, kept[is_member], aside)
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)

    both = kept[True].keys() & kept[False].keys()
    for identifier in sorted(both):
        for given in kept.values():
            if identifier in given:
                aside.append(SetAside(given.pop(identifier).where, identifier, CONTRADICTION))
    for identifier in sorted(kept[None].keys() & (kept[True].keys() | kept[False].keys())):
        row = kept[None].pop(identifier)
        known = kept[True].get(identifier) or kept[False][identifier]
        aside.append(SetAside(row.where, identifier, f"{REPEATED} {known.where}"))

    for (is_member, paths), name in zip(
        classes, ("members", "non_members", "candidates"), strict=True
    ):
        if paths and not kept[is_member]:
            reasons = ", ".join(f"{n} x {r}" for r, n in count_reasons(aside).items())
            raise InputError(
                f"records.{name}: not one usable record in {', '.join(paths)}"
                + (f" (set aside: {reasons})" if reasons else " (no rows)")
            )
    found = [
        (identifier, row.text, is_member, _group(row.group))
        for is_member, _ in classes
        for identifier, row in kept[is_member].items()
    ]
    columns = zip(*found, strict=True)
    table = pa.table(
        [pa.array(c, type=f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    return RecordSet(table, aside)


def read_other_texts(
    paths: list[str],
    column: str,
    what: str,
    taken: Mapping[str, str],
    aside: list[SetAside],
    where: str,
) -> dict[str, str]:
    """Read texts that are none of the records: prompts, a population, known members.

    Parameters
    ----------
    what : what such a text is called in messages, as "prompt".
    taken : what a text must not be, by record id, as "a record".
    aside : texts that cannot be used are added to it.
    where : the key of the audit file.

    Returns
    -------
    Texts by record id, in the order of the files.

    Raises
    ------
    InputError
        For files that cannot be read, or when not one text can be used.
    """
    texts: dict[str, str] = {}
    before = len(aside)
    for path in paths:
        for row in read_texts(path, column):
            if not isinstance(row.text, str) or not row.text.strip():
                aside.append(SetAside(row.where, None, f"a {what} without text"))
                continue
            if not is_unicode(row.text):
                aside.append(SetAside(row.where, None, f"a {what} that is {NOT_UNICODE}"))
                continue
            identifier = record_id(row.text)
            if identifier in taken:
                reason = f"a {what} that is also {taken[identifier]}"
                aside.append(SetAside(row.where, identifier, reason))
            elif identifier in texts:
                aside.append(SetAside(row.where, identifier, f"a {what} that was given before"))
            else:
                texts[identifier] = row.text
    if not texts:
        reasons = ", ".join(f"{n} x {r}" for r, n in count_reasons(aside[before:]).items())
        raise InputError(
            f"{where}: not one usable {what} in {', '.join(paths)} ({reasons or 'no rows'}); "
            f"a {what} is a text that is not among the records"
        )
    return texts


class HasReason(Protocol):
    """A record that was set aside, here or in a run's result."""

    @property
    def reason(self) -> str: ...


def _group(value: Any) -> str | None:
    """A group's name; None for an empty cell."""
    name = "" if value is None else str(value).strip()
    return name.encode(errors="replace").decode() or None


def count_reasons(aside: Sequence[HasReason]) -> dict[str, int]:
    """How many records were set aside for each reason, the most frequent first."""
    short = (REPEATED if a.reason.startswith(REPEATED) else a.reason for a in aside)
    return dict(Counter(short).most_common())


def _keep(rows: Iterator[_Row], kept: dict[str, _Row], aside: list[SetAside]) -> None:
    for row in rows:
        if not isinstance(row.text, str):
            what = "null" if row.text is None else type(row.text).__name__
            aside.append(SetAside(row.where, None, f"{NOT_TEXT} but {what}"))
            continue
        if not row.text.strip():
            aside.append(SetAside(row.where, None, EMPTY))
            continue
        if not is_unicode(row.text):
            aside.append(SetAside(row.where, None, NOT_UNICODE))
            continue
        identifier = record_id(row.text)
        if identifier in kept:
            first = kept[identifier].where
            aside.append(SetAside(row.where, identifier, f"{REPEATED} {first}"))
        else:
            kept[identifier] = row


def read_texts(path: str, column: str, group_column: str | None = None) -> Iterator[_Row]:
    """Yield the rows of a JSONL, CSV or Parquet file, each with its place (1-based).

    Raises
    ------
    InputError
        If the file is missing, of another format, malformed, or without the column.
    """
    readers = {".jsonl": _jsonl, ".json": _jsonl, ".csv": _csv, ".parquet": _parquet}
    suffix = PurePosixPath(path).suffix.lower()
    if suffix not in readers:
        raise InputError(
            f"{path}: records are read from files whose names end in .jsonl, .csv or .parquet"
        )
    try:
        with fsspec.open(path, "rb") as file:
            yield from readers[suffix](path, file, column, group_column)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable {suffix} file: {error}") from None
    except (OSError, ImportError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be opened: {error}") from None


def _check_columns(where: str, column: str, group: str | None, found: list[str]) -> None:
    for key, name in (("text_column", column), ("group_column", group)):
        if name is not None and name not in found:
            raise InputError(
                f"{where}: no column {name!r}; found: {', '.join(map(str, found)) or 'none'}. "
                f"Name the right one as {key} in the audit file"
            )


def _jsonl(path: str, file: Any, column: str, group: str | None) -> Iterator[_Row]:
    for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path} line {number}: not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(
                f"{path} line {number}: each line should be an object such as "
                f'{{"{column}": "..."}}, but this one is a {type(row).__name__}'
            )
        _check_columns(f"{path} line {number}", column, group, list(row))
        yield _Row(f"{path} line {number}", row[column], group and row[group])


def _csv(path: str, file: Any, column: str, group: str | None) -> Iterator[_Row]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
        _check_columns(path, column, group, list(reader.fieldnames or []))
        for number, row in enumerate(reader, start=1):
            yield _Row(f"{path} row {number}", row[column], group and row[group])
    except csv.Error as error:
        raise InputError(f"{path} near line {reader.line_num}: not valid CSV: {error}") from None


def _parquet(path: str, file: Any, column: str, group: str | None) -> Iterator[_Row]:
    parquet = pq.ParquetFile(file)
    _check_columns(path, column, group, parquet.schema_arrow.names)
    number = 0
    for batch in parquet.iter_batches(columns=[column] if group is None else [column, group]):
        for row in batch.to_pylist():
            number += 1
            yield _Row(f"{path} row {number}", row[column], group and row[group])
