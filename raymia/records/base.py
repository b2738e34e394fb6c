"""Records: validation, duplicates, and what is set aside; the same for every kind.

A record that cannot be used is set aside with its place and the reason, never lost; a file that
cannot be used is refused. How texts are read is in :mod:`raymia.records.texts`, how images are in
:mod:`raymia.records.images`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raymia.spec import RecordsSection
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.reasons import CAME, REPEATED

CONTRADICTION = "given as member and as non-member"
_ROWS_PER_BATCH = 4096


@dataclass(frozen=True)
class SetAside:
    """A record that is not scored, where it stands and why."""

    where: str
    record_id: str | None
    reason: str


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
    cannot be used."""

    where: str
    record_id: str = ""
    payload: Any = None
    group: str | None = None
    reason: str | None = None
    remarks: tuple[str, ...] = ()


Read = Callable[[str], Iterator[Given]]
"""Reads what a path holds; an InputError refuses the path."""


def gather_records(spec: RecordsSection, read: Read, schema: pa.Schema) -> RecordSet:
    """Read members, non-members and candidates of any kind.

    A record that occurs again within its class is set aside as a repetition; one that is both
    member and non-member is set aside everywhere. A candidate that is also a member or a non-member
    is set aside as a candidate.

    Raises
    ------
    InputError
        For files that are missing, unreadable or without a column (all of them together), or when a
        class has files but not one usable record.
    """
    problems: list[str] = []
    aside: list[SetAside] = []
    kept: dict[bool | None, dict[str, Given]] = {}
    classes = ((True, spec.members), (False, spec.non_members), (None, spec.candidates))
    for is_member, paths in classes:
        kept[is_member] = {}
        for path in paths:
            try:
                _keep(read(path), kept[is_member], aside)
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
            reasons = _counted(aside)
            raise InputError(
                f"records.{name}: not one usable record in {', '.join(paths)}"
                + (f" (set aside: {reasons})" if reasons else " (no rows)")
            )
    remarks: dict[str, list[str]] = {}
    for row in (row for rows in kept.values() for row in rows.values()):
        for remark in row.remarks:
            remarks.setdefault(remark, []).append(row.where)
    return RecordSet(_table(kept, schema), aside, remarks)


@dataclass(frozen=True)
class Others:
    """What is none of the records, as a population: what it is called, and what it must not be.

    Attributes
    ----------
    what : what one of them is called, as "prompt".
    where : the key of the audit file.
    taken : what none of them may be, by record id, as "a record".
    aside : what cannot be used is added to it.
    """

    what: str
    where: str
    taken: Mapping[str, str] = field(default_factory=dict)
    aside: list[SetAside] = field(default_factory=list)


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
    what, taken, aside = others.what, others.taken, others.aside
    one = f"{'an' if what[0] in 'aeiou' else 'a'} {what}"
    payloads: dict[str, Any] = {}
    problems: list[str] = []
    before = len(aside)

    def keep(given: Given) -> None:
        if given.reason is not None:
            aside.append(SetAside(given.where, None, f"{one} that is {given.reason}"))
        elif given.record_id in taken:
            reason = f"{one} that is also {taken[given.record_id]}"
            aside.append(SetAside(given.where, given.record_id, reason))
        elif given.record_id in payloads:
            aside.append(SetAside(given.where, given.record_id, f"{one} that was given before"))
        else:
            payloads[given.record_id] = given.payload

    for path in paths:
        try:
            for given in read(path):
                keep(given)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if not payloads:
        raise InputError(
            f"{others.where}: not one usable {what} in {', '.join(paths)} "
            f"({_counted(aside[before:]) or 'no rows'}); {one} is {kind} that is not among the "
            "records"
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
    """A group's name; None for an empty cell."""
    name = "" if value is None else str(value).strip()
    return name.encode(errors="replace").decode() or None


def _keep(rows: Iterator[Given], kept: dict[str, Given], aside: list[SetAside]) -> None:
    for row in rows:
        if row.reason is not None:
            aside.append(SetAside(row.where, None, row.reason))
        elif row.record_id in kept:
            first = kept[row.record_id].where
            aside.append(SetAside(row.where, row.record_id, f"{REPEATED} {first}"))
        else:
            kept[row.record_id] = row


def _table(kept: dict[bool | None, dict[str, Given]], schema: pa.Schema) -> pa.Table:
    """Records by class as a table; takes them out of ``kept``, so that they are held once."""
    batches = []
    for is_member, rows in kept.items():
        ids = list(rows)
        for start in range(0, len(ids), _ROWS_PER_BATCH):
            found = [rows.pop(i) for i in ids[start : start + _ROWS_PER_BATCH]]
            columns = zip(
                *((g.record_id, g.payload, is_member, g.group) for g in found), strict=True
            )
            arrays = [pa.array(c, type=f.type) for c, f in zip(columns, schema, strict=True)]
            batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema=schema)
