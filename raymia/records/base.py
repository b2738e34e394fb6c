"""Records: validation, duplicates, and what is set aside; the same for every kind.

A record that cannot be used is set aside with its place and the reason, never lost; a file that
cannot be used is refused. How texts are read is in :mod:`raymia.records.texts`, how images are in
:mod:`raymia.records.images`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.spec import RecordsSection
from raymia.storage.scratch_table import ScratchTable
from raymia.util.encodings import printable
from raymia.util.errors import InputError
from raymia.util.hashing import Hashes, rows_alike, string_hashes
from raymia.util.listing import listed
from raymia.util.reasons import CAME, REPEATED

CONTRADICTION = "given as member and as non-member"
_ROWS_PER_BATCH, _BYTES_PER_BATCH = 4096, 2**26
"""Most of what is held before it is written, however large the payloads are."""
_BESIDE = (pa.field("where", pa.string()), pa.field("remarks", pa.list_(pa.string())))
"""Of each row that is read, beside the columns of its kind of records."""


@dataclass(frozen=True)
class SetAside:
    """A record that is not scored, where it stands and why."""

    where: str
    record_id: str | None
    reason: str


_Placed = list[tuple[int, SetAside]]
"""What is set aside, each with its place among the rows that were read."""


@dataclass(frozen=True)
class RecordSet:
    """The usable records of an audit and those set aside.

    Attributes
    ----------
    remarks : places of records that are used, by what one should know of them.
    """

    table: pa.Table
    set_aside: list[SetAside] = field(default_factory=list)
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return list(self.table["record_id"].to_pylist())

    def remark_lines(self) -> list[str]:
        """The remarks, each as a sentence that says how many records it is of, and of which."""
        return [
            f"records: {len(places):,} {remark}{CAME}{listed(places)}"
            for remark, places in self.remarks.items()
        ]

    def count(self, is_member: bool | None) -> int:
        column = self.table["is_member"]
        if is_member is None:
            return int(column.null_count)
        return int(pc.sum(pc.equal(column, is_member)).as_py() or 0)


@dataclass(frozen=True, slots=True)
class Given:
    """What was read at a place: a payload under its id and remarks on it, or the reason why it
    cannot be used. Place and reason can be printed, whatever the names of files in them."""

    where: str
    record_id: str = ""
    payload: Any = None
    group: str | None = None
    reason: str | None = None
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", printable(self.where))
        if self.reason is not None:
            object.__setattr__(self, "reason", printable(self.reason))


Read = Callable[[str], Iterator[Given]]
"""Reads what a path holds; an InputError refuses the path."""


def gather_records(spec: RecordsSection, read: Read, schema: pa.Schema) -> RecordSet:
    """Read members, non-members and candidates of any kind.

    A record that occurs again within its class is set aside as a repetition; one that is both
    member and non-member is set aside everywhere. A candidate that is also a member or a non-member
    is set aside as a candidate.

    The rows go to a scratch file as they are read, and the table is mapped from there. Repetitions
    are found by hashes of 8 bytes; what shares one is compared by its id.

    Raises
    ------
    InputError
        For files that are missing, unreadable or without a column (all of them together), or when a
        class has files but not one usable record.
    """
    problems: list[str] = []
    unusable: list[tuple[int, SetAside]] = []
    by_class: dict[bool | None, list[SetAside]] = {True: [], False: [], None: []}
    read_rows = _ReadRows(schema)
    classes = ((True, spec.members), (False, spec.non_members), (None, spec.candidates))
    for is_member, paths in classes:
        for path in paths:
            try:
                for given in read(path):
                    if given.reason is None:
                        read_rows.add(given, is_member)
                    else:
                        reason = SetAside(given.where, None, given.reason)
                        unusable.append((len(read_rows), reason))
                        by_class[is_member].append(reason)
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)

    table, hashes = read_rows.finished()
    repetitions, taken_out = _repetitions(table, hashes)
    # As they were read: what cannot be used stands before the row that was read after it.
    in_class = [*unusable, *repetitions]
    aside = [one for _, one in sorted(in_class, key=lambda placed: placed[0])]
    used = np.ones(len(hashes), bool)
    used[[row for row, _ in repetitions]] = False
    used[[row for row, _ in taken_out]] = False
    aside += [one for _, one in taken_out]

    ends = np.cumsum([0, *(read_rows.counts[is_member] for is_member, _ in classes)])
    for number, name in enumerate(("members", "non_members", "candidates")):
        is_member, paths = classes[number]
        start, end = ends[number], ends[number + 1]
        if paths and not used[start:end].any():
            lost = [one for row, one in (*repetitions, *taken_out) if start <= row < end]
            reasons = _counted([*by_class[is_member], *lost])
            problems.append(
                f"records.{name}: not one usable record in {', '.join(paths)}"
                + (f" (set aside: {reasons})" if reasons else " (no rows)")
            )
    if problems:
        raise InputError(problems)
    kept = _kept(table, used)
    return RecordSet(kept.select(schema.names), aside, _remarks(kept))


@dataclass(frozen=True)
class Others:
    """What is none of the records, as a population: what it is called, and what it must not be.

    Attributes
    ----------
    what : what one of them is called, as "prompt".
    where : the key of the audit file.
    taken : what none of them may be, by record id, as "a record".
    aside : what cannot be used is added to it.
    among : of payloads by id, none of which is taken, those that must not be used for another
        reason.
    each : takes the id of every one that is used, in order, where one that is given again counts
        again, as a sample does; None has repetitions set aside.
    """

    what: str
    where: str
    taken: Mapping[str, str] = field(default_factory=dict)
    aside: list[SetAside] = field(default_factory=list)
    among: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None
    each: list[str] | None = None


def gather_others(paths: Sequence[str], read: Read, kind: str, others: Others) -> dict[str, Any]:
    """Read what is none of the records.

    Parameters
    ----------
    kind : what a payload is, as "a text".

    Returns
    -------
    Payloads by record id, in the order of the files.

    Raises
    ------
    InputError
        For files that cannot be read (all of them together), or when not one payload can be used.
    """
    what, taken, aside, each = others.what, others.taken, others.aside, others.each
    one = f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
    payloads: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems: list[str] = []
    before = len(aside)

    def keep(given: Given) -> None:
        if given.reason is not None:
            aside.append(SetAside(given.where, None, f"{one} that is {given.reason}"))
        elif given.record_id in taken:
            reason = f"{one} that is also {taken[given.record_id]}"
            aside.append(SetAside(given.where, given.record_id, reason))
        elif given.record_id in payloads and each is None:
            aside.append(SetAside(given.where, given.record_id, f"{one} that was given before"))
        else:
            payloads.setdefault(given.record_id, given.payload)
            places.setdefault(given.record_id, given.where)
            if each is not None:
                each.append(given.record_id)

    for path in paths:
        try:
            for given in read(path):
                keep(given)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    for record_id, why in (others.among(payloads) if others.among else {}).items():
        aside.append(SetAside(places[record_id], record_id, f"{one} that is {why}"))
        del payloads[record_id]
    if not payloads:
        meant = kind if each is not None else f"{kind} that is not among the records"
        raise InputError(
            f"{others.where}: not one usable {what} in {', '.join(paths)} "
            f"({_counted(aside[before:]) or 'no rows'}); {one} is {meant}"
        )
    return payloads


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """How often each reason was given, the most frequent first.

    What a reason says of one record alone is left out, unless it is the same of all.
    """
    shared: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for reason in reasons:
        short = REPEATED if reason.startswith(REPEATED) else reason.partition(CAME)[0]
        counts[short] += 1
        shared[short] = reason if shared.get(short, reason) == reason else short
    return {
        f"{REPEATED} another record" if short == REPEATED else shared[short]: count
        for short, count in counts.most_common()
    }


def _counted(aside: Iterable[SetAside]) -> str:
    counts = count_reasons(one.reason for one in aside)
    return ", ".join(f"{n} x {reason}" for reason, n in counts.items())


def group_name(value: Any) -> str | None:
    """A group's name; None for an empty cell.

    A whole number has one name, of whatever type its column is: that of a column with empty cells
    is float in pandas, where NaN is such a cell.
    """
    if isinstance(value, float):
        value = None if isnan(value) else int(value) if value.is_integer() else value
    name = "" if value is None else str(value).strip()
    return name.encode(errors="replace").decode() or None


class _ReadRows:
    """Rows as they are read, on their way to a scratch file; here are hashes of their ids alone.

    Attributes
    ----------
    counts : of rows by class.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = pa.schema([*schema, *_BESIDE])
        self._scratch = ScratchTable(self._schema)
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._hashes: list[Hashes] = [np.zeros(0, np.uint64)]
        self.counts: Counter[bool | None] = Counter()

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, given: Given, is_member: bool | None) -> None:
        self.counts[is_member] += 1
        own = given.record_id, given.payload, is_member, given.group
        self._rows.append((*own, given.where, given.remarks))
        self._bytes += _size(given.payload)
        if len(self._rows) == _ROWS_PER_BATCH or self._bytes >= _BYTES_PER_BATCH:
            self._write()

    def finished(self) -> tuple[pa.Table, Hashes]:
        """The rows, and the hashes of their ids."""
        self._write()
        return self._scratch.table(), np.concatenate(self._hashes)

    def _write(self) -> None:
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, self._schema, strict=True)]
        self._rows, self._bytes = [], 0
        self._scratch.add(pa.record_batch(arrays, schema=self._schema))
        self._hashes.append(string_hashes(arrays[0]))


def _size(value: Any) -> int:
    """About how many bytes a payload takes; texts and pixels are most of it."""
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_size, value.values())) if isinstance(value, Mapping) else 0


def _repetitions(table: pa.Table, hashes: Hashes) -> tuple[_Placed, _Placed]:
    """The rows that repeat a record of their class, as they were read; and those that are set aside
    for what they are in other classes."""
    suspects = rows_alike(hashes)
    if not suspects.size:
        return [], []
    chosen = np.zeros(len(hashes), bool)
    chosen[suspects] = True
    # A filter looks at one piece after another, where `take` may put all of them together first.
    rows = table.select(["record_id", "is_member", "where"]).filter(pa.array(chosen)).to_pydict()
    within: _Placed = []
    kept: dict[bool | None, dict[str, tuple[int, str]]] = {True: {}, False: {}, None: {}}
    for row, identifier, is_member, where in zip(suspects.tolist(), *rows.values(), strict=True):
        _, first = kept[is_member].setdefault(identifier, (row, where))
        if kept[is_member][identifier][0] != row:
            within.append((row, SetAside(where, identifier, f"{REPEATED} {first}")))
    across: _Placed = []
    for identifier in sorted(kept[True].keys() & kept[False].keys()):
        for found in kept.values():
            if identifier in found:
                row, where = found.pop(identifier)
                across.append((row, SetAside(where, identifier, CONTRADICTION)))
    for identifier in sorted(kept[None].keys() & (kept[True].keys() | kept[False].keys())):
        row, where = kept[None].pop(identifier)
        _, known = kept[True].get(identifier) or kept[False][identifier]
        across.append((row, SetAside(where, identifier, f"{REPEATED} {known}")))
    return within, across


def _kept(table: pa.Table, used: npt.NDArray[np.bool_]) -> pa.Table:
    """The rows that are used, in a scratch file as the others."""
    if used.all():
        return table
    scratch, done = ScratchTable(table.schema), 0
    for batch in table.to_batches():
        scratch.add(batch.filter(pa.array(used[done : done + batch.num_rows])))
        done += batch.num_rows
    return scratch.table()


def _remarks(table: pa.Table) -> dict[str, list[str]]:
    """The places of rows by what is remarked on them."""
    remarks: dict[str, list[str]] = {}
    for batch in table.select(["where", "remarks"]).to_batches():
        if len(batch["remarks"].flatten()):
            rows = zip(batch["where"].to_pylist(), batch["remarks"].to_pylist(), strict=True)
            for where, own in rows:
                for remark in own:
                    remarks.setdefault(remark, []).append(where)
    return remarks
