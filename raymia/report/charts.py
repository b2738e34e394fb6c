"""What the page draws: each chart as JSON values, numbered in the order of the page.

A chart says its ``kind``: the function of ``page/charts.js`` that draws it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from raymia.metrics.roc import FloatArray, IntArray
from raymia.metrics.summary import AttackMetrics
from raymia.report.series import Series
from raymia.results import wording
from raymia.results.curves import SHOWN_AT_FIRST, AttackCurves, plot_data
from raymia.results.ranking import TargetRanking, at_budget

Chart = dict[str, Any]
MANY_TARGETS = 4
"""With more than this, a target's page keeps the curves that are shown at first alone."""
MAX_CHECKPOINTS = 20
"""Whose curves lie over each other: below the chart, a phone has a line for the name of each."""
DIGITS = 4


class Charts:
    """Collects charts."""

    def __init__(self) -> None:
        self.all: list[Chart] = []

    def add(self, chart: Chart | None) -> int | None:
        """The chart's number; None where there is nothing to draw."""
        if chart is None:
            return None
        self.all.append(chart)
        return len(self.all) - 1


def roc_chart(
    ranking: TargetRanking,
    curves: Sequence[AttackCurves],
    leader: AttackMetrics | None,
    *,
    many: bool,
) -> Chart | None:
    """ROC curves of one target, with the band of the leading attack.

    Parameters
    ----------
    many : whether there are so many targets that only the curves shown at first are kept.
    """
    data = plot_data(ranking, curves)
    if many:
        data["curves"] = data["curves"][:SHOWN_AT_FIRST]
    for curve in data["curves"]:
        if leader is not None and curve["name"] == leader.attack:
            low, high = band(np.array(curve["tp"]), curve["members"], leader.confidence)
            curve["low"], curve["high"] = _short(low), _short(high)
    return {"kind": "roc", **data} if data["curves"] else None


def leaders_chart(leaders: Sequence[AttackMetrics], curves: Sequence[AttackCurves]) -> Chart | None:
    """ROC curves of the first `MAX_CHECKPOINTS` checkpoints over each other, by the attack that
    leads on each; the first has a band. ``of`` says how many checkpoints have a curve.

    Parameters
    ----------
    leaders : the most exposed first.
    """
    drawn = {(entry.target, entry.attack): entry for entry in curves}
    one = len({leader.target for leader in leaders}) == 1
    lines: list[Chart] = []
    those = [leader for leader in leaders if (leader.target, leader.attack) in drawn]
    for leader in those[:MAX_CHECKPOINTS]:
        entry = drawn[leader.target, leader.attack]
        line: Chart = {
            "name": leader.attack if one else f"{leader.target}: {leader.attack}",
            "members": entry.n_members,
            "nonMembers": entry.n_non_members,
            "fp": entry.false_positives.tolist(),
            "tp": entry.true_positives.tolist(),
            "shown": len(lines) < SHOWN_AT_FIRST,
        }
        if leader is leaders[0]:
            low, high = band(entry.true_positives, entry.n_members, leader.confidence)
            line["low"], line["high"] = _short(low), _short(high)
        lines.append(line)
    if not lines:
        return None
    return {
        "kind": "roc",
        "first": True,
        "of": len(those),
        "curves": lines,
        "members": max(line["members"] for line in lines),
        "nonMembers": max(line["nonMembers"] for line in lines),
    }


def first_histogram(
    leader: AttackMetrics,
    tested: AttackMetrics | None,
    fpr: float | None,
    curves: Sequence[AttackCurves],
) -> Chart | None:
    """Scores by a leading attack, with the threshold that was chosen on the calibration half.

    Parameters
    ----------
    leader : as it is drawn.
    tested : as it was tested, whose threshold is drawn; None for none.
    """
    place = (leader.target, leader.attack)
    entry = next((entry for entry in curves if (entry.target, entry.attack) == place), None)
    chart = None if entry is None else histogram_chart(entry)
    at = None if fpr is None or tested is None else at_budget(tested, fpr)
    if chart is not None and at is not None and at.held_out is not None:
        chart["threshold"] = _short([at.held_out.threshold])[0]
        chart["budget"] = f"threshold for {wording.budget(at.max_fpr)} FPR"
    return chart


def band(hits: IntArray, of: int, confidence: float) -> tuple[FloatArray, FloatArray]:
    """Clopper and Pearson's interval of each rate by itself.

    Parameters
    ----------
    hits : int [points], of ``of`` records each.

    Returns
    -------
    low, high : float64 [points]
    """
    tail = (1 - confidence) / 2
    low = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), of - hits + 1), 0.0)
    misses = of - hits
    high = np.where(misses > 0, beta.ppf(1 - tail, hits + 1, np.maximum(misses, 1)), 1.0)
    return low, high


def histogram_chart(curves: AttackCurves) -> Chart | None:
    """Scores of members and non-members of one attack; none where all scores are one."""
    if curves.edges[0] == curves.edges[-1]:
        return None
    return {
        "kind": "histogram",
        "name": curves.attack,
        "edges": _short(curves.edges),
        "members": curves.members.tolist(),
        "nonMembers": curves.non_members.tolist(),
    }


def steps_chart(series: Series) -> Chart:
    """AUC of the leading attacks, and the losses, over the number in the checkpoints' names."""
    losses = []
    for name, values in (("non-members", series.held_out), ("members", series.fitted)):
        at = [n for n, value in enumerate(values) if value is not None]
        if at:
            losses.append(
                {
                    "name": f"loss on {name}",
                    "x": [series.steps[n] for n in at],
                    "y": _short([values[n] for n in at]),
                    "at": [series.targets[n] for n in at],
                }
            )
    lines = []
    for place, (attack, found) in enumerate(series.lines.items()):
        at = [n for n, metrics in enumerate(found) if metrics is not None]
        known = [metrics for metrics in found if metrics is not None]
        line: Chart = {
            "name": attack,
            "x": [series.steps[n] for n in at],
            "y": _short([metrics.auc.value for metrics in known]),
            "at": [series.targets[n] for n in at],
        }
        if place == 0:
            line["low"] = _short([metrics.auc.low for metrics in known])
            line["high"] = _short([metrics.auc.high for metrics in known])
        lines.append(line)
    return {"kind": "series", "steps": series.unit, "lines": lines, "losses": losses}


def loss_chart(series: Series) -> Chart | None:
    """AUC of the attack that leads most often against the loss on non-members."""
    attack, found = next(iter(series.lines.items()))
    points = [
        (loss, metrics.auc, target)
        for loss, metrics, target in zip(series.held_out, found, series.targets, strict=True)
        if loss is not None and metrics is not None
    ]
    if len(points) < 2:
        return None
    return {
        "kind": "tradeoff",
        "name": attack,
        "x": _short([loss for loss, _, _ in points]),
        "y": _short([auc.value for _, auc, _ in points]),
        "low": _short([auc.low for _, auc, _ in points]),
        "high": _short([auc.high for _, auc, _ in points]),
        "labels": [target for _, _, target in points],
    }


def cost_chart(measured: Sequence[AttackMetrics], queries: Mapping[str, int]) -> Chart | None:
    """AUC of attacks over what each asks about one record; none where it is known of fewer than
    two.

    An attack is among the best where none has a higher AUC for as few queries.
    """
    known = [attack for attack in measured if queries.get(attack.attack)]
    if len(known) < 2:
        return None

    def is_best(attack: AttackMetrics) -> bool:
        mine = (queries[attack.attack], -attack.auc.value)
        return not any(
            other is not attack
            and queries[other.attack] <= mine[0]
            and -other.auc.value <= mine[1]
            and (queries[other.attack], -other.auc.value) != mine
            for other in known
        )

    return {
        "kind": "cost",
        "names": [attack.attack for attack in known],
        "queries": [queries[attack.attack] for attack in known],
        "y": _short([attack.auc.value for attack in known]),
        "low": _short([attack.auc.low for attack in known]),
        "high": _short([attack.auc.high for attack in known]),
        "best": [is_best(attack) for attack in known],
    }


def _short(values: Any) -> list[float]:
    """Numbers with as few digits as a drawing needs."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else 0.0 for value in values]
