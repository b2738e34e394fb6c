"""Members and held-out records of a language model that is trained here, as an audit reads them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from raymia.prepare.units import drawn_units
from raymia.records.conversations import content_of
from raymia.shift.copies import copied_texts, linked
from raymia.spec import RecordFormat
from raymia.spec.target_training import SplitSpec
from raymia.util.draws import generator
from raymia.util.errors import InputError

GROUP_COLUMN = "group"


@dataclass(frozen=True)
class Record:
    """A record that can be trained on.

    Attributes
    ----------
    id, payload : as audits have them.
    group : that it is trained on together with; None for none.
    """

    id: str
    payload: str
    group: str | None = None


@dataclass(frozen=True)
class TextSplit:
    """Which records are trained on, and which are held out.

    Attributes
    ----------
    near_repetitions : records that were put together because they are nearly alike.
    """

    members: tuple[Record, ...]
    held_out: tuple[Record, ...]
    near_repetitions: int = 0


def draw_members(
    records: Sequence[Record], texts: Sequence[str], spec: SplitSpec, seed: int
) -> TextSplit:
    """Draw at random which records are trained on; records that belong together stay together.

    Who belongs together is of one group, or nearly alike. Which goes where is a function of the
    seed and of the records, whatever their order. Each has the same chance to be trained on,
    whatever it belongs together with, so a draw can differ from the share by some records.

    Parameters
    ----------
    texts : what is compared of each record.

    Raises
    ------
    InputError
        If none would be trained on, or none held out, or more belong together than one side takes.
    """
    order = sorted(range(len(records)), key=lambda row: records[row].id)
    records, texts = [records[row] for row in order], [texts[row] for row in order]
    units, alike = _units(records, texts, spec)
    inside: set[int] = set()
    if spec.inclusion == "randomized":
        coins = generator(seed, "inclusion").random(len(units)) < 0.5
        inside = {row for unit, coin in zip(units, coins, strict=True) if coin for row in unit}
    else:
        wanted = round(spec.members * len(records))
        _refuse_large(units, len(records), min(wanted, len(records) - wanted))
        draws = generator(seed, "text split")
        (numbers,) = drawn_units([len(unit) for unit in units], [wanted], draws)
        inside = {row for number in numbers for row in units[number]}
    if not inside or len(inside) == len(records):
        raise InputError(
            f"split: of {len(records):,} records in {len(units):,} groups, {len(inside):,} would "
            "be trained on; some must be, and some held out: give more records, smaller groups, or "
            "another share as `members`"
        )
    grouped = _grouped(records, units)
    return TextSplit(
        tuple(one for row, one in enumerate(grouped) if row in inside),
        tuple(one for row, one in enumerate(grouped) if row not in inside),
        alike,
    )


def draw_halves(
    records: Sequence[Record], count: int, seed: int, alike: Iterable[Sequence[str]] = ()
) -> list[TextSplit]:
    """Draw random halves for shadows; records of one group, and such as are alike, stay together.

    Halves come in pairs, the second of what the first left out, so that each record is in exactly
    half of them. A pair is a function of the seed, its number and the records: more shadows leave
    those before them as they are.

    Parameters
    ----------
    count : an even number.
    alike : ids of records that are nearly alike, cluster by cluster.

    Raises
    ------
    InputError
        If no half can be drawn, as of a single group, or more than half belong together.
    """
    records = sorted(records, key=lambda record: record.id)
    rows = {record.id: row for row, record in enumerate(records)}
    near = ([rows[one] for one in cluster] for cluster in alike)
    units = _united(len(records), [*_groups(records), *near])
    largest = max(map(len, units), default=0)
    if len(units) > 1 and 2 * largest >= len(records) + (len(units) == 2):
        raise InputError(
            f"shadows: {largest:,} of {len(records):,} records belong together, by their group or "
            "as near-repetitions, which is too many for halves, so that all pairs of shadows would "
            "have the same halves; give more records or smaller groups, leave out repetitions, or "
            "say `split: {near_repetitions: apart}`"
        )
    splits = []
    for pair in range(count // 2):
        order = generator(seed, "shadows", pair).permutation(len(units)).tolist()
        inside = _filled(units, order, len(records) // 2)
        if not inside:
            raise InputError(
                f"shadows: of {len(records):,} records in {len(units):,} groups no half can be "
                "drawn; give more records, or smaller groups"
            )
        first, second = (
            tuple(one for row, one in enumerate(records) if (row in inside) is side)
            for side in (True, False)
        )
        splits += [TextSplit(first, second), TextSplit(second, first)]
    return splits


def written(records: Iterable[Record], kind: RecordFormat, *, grouped: bool) -> bytes:
    """Records as JSONL, which every format can be written in.

    Parameters
    ----------
    grouped : whether they have a column of groups.
    """
    lines = []
    for record in records:
        is_text = kind == "text"
        row: dict[str, Any] = {"text": record.payload} if is_text else content_of(record.payload)
        if grouped:
            row[GROUP_COLUMN] = record.group
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _refuse_large(units: Sequence[Sequence[int]], count: int, room: int) -> None:
    """Refuse units of which the largest would decide which side all others are on."""
    largest = max(map(len, units), default=0)
    if len(units) > 1 and 0 < room < largest:
        raise InputError(
            f"split: {largest:,} of {count:,} records belong together, by their group or as "
            f"near-repetitions, and the smaller side takes {room:,}; say `split: "
            "{near_repetitions: apart}`, leave out repetitions, or give smaller groups, more "
            "records or another share as `members`"
        )


def _filled(units: Sequence[Sequence[int]], order: Iterable[int], wanted: int) -> set[int]:
    """Rows of units that are taken in an order, each that there is still room for."""
    inside: set[int] = set()
    for number in order:
        if len(inside) + len(units[number]) <= wanted:
            inside |= {*units[number]}
    return inside


def _units(
    records: Sequence[Record], texts: Sequence[str], spec: SplitSpec
) -> tuple[list[list[int]], int]:
    """Rows that belong together, and how many do because they are nearly alike."""
    alike = copied_texts(texts) if spec.near_repetitions == "together" else []
    return _united(len(records), [*_groups(records), *alike]), sum(map(len, alike))


def _groups(records: Sequence[Record]) -> list[list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        if record.group is not None:
            groups[record.group].append(row)
    return list(groups.values())


def _united(count: int, together: Iterable[Sequence[int]]) -> list[list[int]]:
    """All rows, in units of those that belong together, directly or by others."""
    units = linked((rows[0], other) for rows in together for other in rows[1:])
    alone = {*range(count)} - {row for unit in units for row in unit}
    return sorted([*units, *([row] for row in alone)])


def _grouped(records: Sequence[Record], units: Sequence[Sequence[int]]) -> list[Record]:
    """Records with the name of their unit, where it has others."""
    found = list(records)
    for unit in units:
        names = sorted({records[row].group or "" for row in unit} - {""})
        name = names[0] if names else records[unit[0]].id if len(unit) > 1 else None
        for row in unit:
            found[row] = Record(records[row].id, records[row].payload, name)
    return found
