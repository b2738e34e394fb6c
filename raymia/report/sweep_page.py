"""The page of a sweep: one HTML file that loads nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from raymia.metrics.summary import Estimate
from raymia.report import sweep_wording as wording
from raymia.report.html import render_page
from raymia.results import wording as words
from raymia.spec import ObjectiveSpec, Value
from raymia.sweep.evaluate import objective_of
from raymia.sweep.result import Row, SweepResult, Winner

LISTED = 50
"""Settings of an attack that the page lists; all are in sweep.parquet."""
MAX_LINES = 1_000
"""Settings of an attack that are drawn."""
MAX_TICKS = 6
WIDE = 50
"""Ratio of largest to smallest from which an axis of positive numbers is logarithmic."""


def render(result: SweepResult, rows: Sequence[Row]) -> str:
    """Write the page of a sweep.

    Returns
    -------
    str
        One HTML document. It holds its styles and its scripts, forbids itself any network access by
        a content security policy, and escapes every string that came from outside.
    """
    charts: list[dict[str, Any]] = []
    groups = []
    for winner in result.winners:
        group, chart = _group(winner, result, rows)
        groups.append({**group, "chart": len(charts)})
        charts.append(chart)
    return render_page(
        "sweep.html",
        charts,
        run=result,
        objective=wording.objective_name(result.objective),
        halves=wording.halves_text(result),
        groups=groups,
        listed=LISTED,
    )


class _Number(NamedTuple):
    """A number as it is shown, and what its column is sorted by; None where there is none."""

    text: str
    value: float | None


def _figure(estimate: Estimate | None, result: SweepResult) -> _Number:
    value = None if estimate is None else estimate.value
    return _Number(wording.figure(estimate, result.objective), value)


def _group(
    winner: Winner, result: SweepResult, rows: Sequence[Row]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page shows of one attack on one target, and its chart."""
    own = [
        row
        for row in rows
        if (row.setting.place.target, row.setting.place.swept) == (winner.target, winner.attack)
    ]
    merit = {id(row): row.found.objective(result.rates, result.objective) for row in own}
    measured = [row for row in own if merit[id(row)] is not None]
    measured.sort(key=lambda row: -(merit[id(row)] or 0.0))
    chosen, judged = (winner.objective(half, result) for half in ("calibration", "evaluation"))
    group = {
        "winner": winner,
        "setting": wording.setting_text(winner.parameters, winner.queries),
        "chosen": _figure(chosen, result),
        "judged": _figure(judged, result),
        "optimism": _Number(wording.optimism_text(winner, result), winner.optimism(result)),
        "held_out": wording.held_out_text(winner, result),
        "settings": [
            {
                "label": row.setting.place.label,
                "setting": wording.setting_text(row.setting.parameters, row.queries),
                "chosen": _shown(merit[id(row)], result.objective),
                "judged": _shown(_judged(row, result), result.objective),
            }
            for row in measured[:LISTED]
        ],
        "measured": len(measured),
    }
    return group, parallel_coordinates(measured[:MAX_LINES], result)


def parallel_coordinates(rows: Sequence[Row], result: SweepResult) -> dict[str, Any]:
    """What the page needs to draw settings as lines over parallel axes.

    Returns
    -------
    dict
        JSON values only. ``axes``: name and ticks (place from 0 to 1, text) of each parameter that
        has several values, and of the objective on both halves. ``lines``: for each setting, best
        first, its place on each axis and its text.
    """
    columns: dict[str, list[Value | None]] = {}
    labels = [row.setting.place.label for row in rows]
    if len(set(labels)) > 1:
        columns["attack"] = list(labels)
    for key in dict.fromkeys(key for row in rows for key in row.queries):
        columns[key] = [row.queries.get(key) for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row.setting.parameters):
        columns[name] = [row.setting.parameters.get(name) for row in rows]
    axes, places = [], []
    for name, values in columns.items():
        if len({repr(value) for value in values}) > 1:
            ticks, at = _axis(values)
            axes.append({"name": name, "ticks": ticks})
            places.append(at)
    chosen = [row.found.objective(result.rates, result.objective) or 0.0 for row in rows]
    judged = [_judged(row, result) for row in rows]
    present = [*chosen, *(value for value in judged if value is not None)]
    low, high = (min(present), max(present)) if present else (0.0, 1.0)
    for name, scores in (("chosen on", chosen), ("judged on", judged)):
        axes.append({"name": name, "ticks": _ticks_between(low, high)})
        places.append([None if v is None else _share(v, low, high) for v in scores])
    return {
        "kind": "parallel",
        "axes": axes,
        "lines": [
            {
                "at": [at[number] for at in places],
                "text": f"{labels[number]}: "
                f"{wording.setting_text(row.setting.parameters, row.queries)}",
                "chosen": _shown(chosen[number], result.objective),
                "judged": _shown(judged[number], result.objective),
            }
            for number, row in enumerate(rows)
        ],
    }


def _axis(values: Sequence[Value | None]) -> tuple[list[Any], list[float | None]]:
    """Ticks of an axis, and the place of each value on it."""
    present = [value for value in values if value is not None]
    numbers = [v for v in present if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(present):
        low, high = min(numbers), max(numbers)
        wide = low > 0 and high / low >= WIDE
        scale = math.log if wide else float
        ends = scale(low), scale(high)
        at = [_share(scale(v), *ends) if isinstance(v, int | float) else None for v in values]
        distinct = sorted(set(numbers))
        shown = distinct
        if len(distinct) > MAX_TICKS:
            steps = [low + (high - low) * i / (MAX_TICKS - 1) for i in range(MAX_TICKS)]
            if wide:
                steps = [low * (high / low) ** (i / (MAX_TICKS - 1)) for i in range(MAX_TICKS)]
            shown = steps
        return [[_share(scale(v), *ends), wording.value_text(v)] for v in shown], at
    texts = list(dict.fromkeys(str(value) for value in present))
    spread = {text: _share(number, 0, len(texts) - 1) for number, text in enumerate(texts)}
    return (
        [[place, text] for text, place in spread.items()],
        [None if value is None else spread[str(value)] for value in values],
    )


def _ticks_between(low: float, high: float) -> list[Any]:
    steps = [low + (high - low) * i / (MAX_TICKS - 1) for i in range(MAX_TICKS)]
    return [[_share(step, low, high), f"{step:.3g}"] for step in steps]


def _share(value: float, low: float, high: float) -> float:
    return 0.5 if high <= low else round((value - low) / (high - low), 5)


def _judged(row: Row, result: SweepResult) -> float | None:
    return objective_of(row.found.evaluation, result.rates, result.objective)


def _shown(value: float | None, objective: ObjectiveSpec) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if objective.metric == "auc" else words.percent(value)
