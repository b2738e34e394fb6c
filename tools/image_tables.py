"""The finished cells of tools/image_study.py as tables, written into the page on images.

python tools/image_tables.py
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
CELLS, PAGE = DOCS / "studies" / "images", DOCS / "results-images.md"
START, END = "<!-- made by tools/image_tables.py -->", "<!-- end -->"
COMPARED = (
    "loss", "loss@base", "loss@self_generated", "peak_error@self_generated", "pfami", "pia", "sima",
    "sima_mc", "secmi",
)  # fmt: skip
"""Attacks of the first table, chosen before there were results."""
OF_A_SHARE = re.compile(r"loss_\d+")
"""The loss at one share of the path, in percent."""

Cell = Mapping[str, Any]
Groups = dict[tuple[str, str], list[Cell]]
"""Cells of all seeds, by set and kind."""


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), read_cells()), encoding="utf-8")


def read_cells(folder: Path = CELLS) -> list[dict[str, Any]]:
    """All finished cells, by set, kind and seed."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return sorted(cells, key=lambda one: (*_group(one), one["cell"]["seed"]))


def with_tables(page: str, cells: Sequence[Cell]) -> str:
    """The page with its tables made anew."""
    before, found, rest = page.partition(START)
    if not found or END not in rest:
        raise SystemExit(f"{PAGE}: the tables stand between {START} and {END}; put both there")
    return f"{before}{START}\n\n{chr(10).join(tables(cells))}\n{END}{rest.partition(END)[2]}"


def tables(cells: Sequence[Cell]) -> Iterator[str]:
    """What is compared in two tables, and a table for each set and kind."""
    groups: Groups = {}
    for cell in cells:
        groups.setdefault(_group(cell), []).append(cell)
    yield from _compared(groups)
    yield from _along(groups)
    for (name, kind), group in groups.items():
        yield from _of_group(f"### {name}, {kind}", group)


def _compared(groups: Groups) -> Iterator[str]:
    """TPR at 1 % FPR of a few attacks, as the mean over the seeds."""
    yield "### In one table\n"
    names = " | ".join(f"`{name}`" for name in COMPARED)
    yield f"| set | model | steps | seeds | loss on members / others | {names} |"
    yield "|---" * (5 + len(COMPARED)) + "|"
    for (name, kind), group in groups.items():
        if not {*COMPARED} <= group[0]["attacks"].keys():
            continue
        for point in _points(group):
            losses = [f"{_mean(c['losses'][point][n] for c in group):.4f}" for n in (0, 1)]
            shares = [
                f"{100 * _mean(c['attacks'][attack][point][1][0] for c in group):.1f} %"
                for attack in COMPARED
            ]
            start = [name, kind, f"{int(point):,}", str(len(group)), " / ".join(losses)]
            yield f"| {' | '.join([*start, *shares])} |"
    yield ""


def _along(groups: Groups) -> Iterator[str]:
    """AUC of the loss at each share of the path, as the mean over the seeds."""
    yield "### Along the path\n"
    attacks = {attack for group in groups.values() for attack in group[0]["attacks"]}
    along = sorted(filter(OF_A_SHARE.fullmatch, attacks), key=lambda one: int(one[len("loss_") :]))
    shares = " | ".join(f"{one.removeprefix('loss_')} %" for one in along)
    yield f"| set | model | steps | {shares} |"
    yield "|---" * (3 + len(along)) + "|"
    for (name, kind), group in groups.items():
        for point in _points(group):
            areas = [f"{_mean(c['attacks'][one][point][0][0] for c in group):.3f}" for one in along]
            yield f"| {name} | {kind} | {int(point):,} | {' | '.join(areas)} |"
    yield ""


def _of_group(title: str, group: Sequence[Cell]) -> Iterator[str]:
    """Every attack at every point of each seed, the best at the last point first."""
    points = _points(group)
    took = ", ".join(
        f"{sum(c['seconds'].values()):,}" if c["in_one_go"] else "unknown" for c in group
    )
    yield f"{title}\n\nSeconds of one core: {took}.\n"
    heads = [f"seed {c['cell']['seed']}, {int(p):,} steps" for c in group for p in points]
    yield f"| attack | passes | {' | '.join(heads)} |"
    yield "|---" * (2 + len(heads)) + "|"
    last = points[-1]

    def found_by(attack: str) -> float:
        return _mean(c["attacks"][attack][last][1][0] for c in group)

    for attack in sorted(group[0]["attacks"], key=found_by, reverse=True):
        row = [_said(c["attacks"][attack][point]) for c in group for point in points]
        passes = " + ".join(f"{one:,}" for one in group[0]["passes"][attack] if one)
        yield f"| `{attack}` | {passes} | {' | '.join(row)} |"
    yield ""


def _group(cell: Cell) -> tuple[str, str]:
    return cell["cell"]["set"], cell["cell"]["kind"]


def _points(group: Sequence[Cell]) -> list[str]:
    """Steps after which all cells of a group were audited, the first first."""
    attacks = next(iter(group[0]["attacks"].values()))
    return sorted(attacks, key=int)


def _mean(values: Iterator[float]) -> float:
    return statistics.fmean(values)


def _said(found: Sequence[Sequence[float]]) -> str:
    area, (value, low, high) = found[0][0], (100 * one for one in found[1])
    return f"{value:.1f} ({low:.1f} to {high:.1f}) % / {area:.3f}"


if __name__ == "__main__":
    main()
