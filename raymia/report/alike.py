"""Tables of many targets, of which most rows say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from raymia.results.gate_result import GateOutcome, GateStatus

MAX_ALIKE = 20
SHOWN = 3
WORST_FIRST: Sequence[GateStatus] = ("failed", "not_evaluated", "undecided", "passed")


def shorten(rows: Sequence[Sequence[str]], names: int) -> Iterator[Sequence[str]]:
    """Rows of a table, where of many that say the same the first few stand for all.

    Parameters
    ----------
    rows : cells; the first ``names`` of a row say what it is about, as ``target:one``, and the
        others what is said of it. Rows are alike where the others are equal, and what the first
        cell has before its colon.

    Yields
    ------
    All rows of which 20 or fewer are alike; of others three, and a row that says how many more.
    """

    def what(row: Sequence[str]) -> tuple[str, ...]:
        return row[0].partition(":")[0], *row[names:]

    total, seen = Counter(map(what, rows)), Counter[tuple[str, ...]]()
    for row in rows:
        kind = what(row)
        seen[kind] += 1
        if total[kind] <= MAX_ALIKE or seen[kind] <= SHOWN:
            yield row
        elif seen[kind] == SHOWN + 1:
            more = f"{kind[0]}: {total[kind] - SHOWN:,} more"
            yield [more, *("" for _ in range(names - 1)), *kind[1:]]


@dataclass(frozen=True)
class GateRow:
    """What the release gate decided for one condition, in the same words on some targets."""

    status: GateStatus
    condition: str
    targets: tuple[str, ...]
    reason: str


def gate_rows(outcomes: Iterable[GateOutcome]) -> list[GateRow]:
    """The outcomes of a gate, the worst first; those together that differ in the target alone."""
    targets: dict[tuple[GateStatus, str, str], list[str]] = {}
    for one in outcomes:
        targets.setdefault((one.status, one.condition, one.reason), []).append(one.target)
    rows = [
        GateRow(status, condition, tuple(names), reason)
        for (status, condition, reason), names in targets.items()
    ]
    return sorted(rows, key=lambda row: WORST_FIRST.index(row.status))
