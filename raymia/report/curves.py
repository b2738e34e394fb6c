"""ROC curves thinned for drawing, as counts that the page turns into rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raymia.metrics.roc import IntArray, RocCurve, roc_curve
from raymia.report.ranking import TargetRanking
from raymia.report.scores import LabelledScores

MOST_POINTS = 2000
SHOWN_AT_FIRST = 8
"""More curves than this overlap; the rest are a click away in the legend."""


def step_points(
    curve: RocCurve, fprs: Sequence[float] = (), most: int = MOST_POINTS
) -> tuple[IntArray, IntArray]:
    """Choose the points of a curve that are worth drawing as steps.

    Points inside a horizontal or vertical run are dropped, which changes nothing in the drawing.
    If more than `most` remain, the first half of them (the low false positive rates) is kept
    whole, then points evenly spread over the logarithm of the rate, then the points that the
    table's rates at `fprs` are read from. Every point drawn is a point of the curve.

    Parameters
    ----------
    curve : RocCurve
    fprs : sequence of float
        Budgets whose points must stay.
    most : int
        Most points to return, plus one for each budget.

    Returns
    -------
    false_positives, true_positives : int64 arrays of shape (n_points,)
        Counts, non-decreasing, from the last point without false positives to (all, all).
    """
    false_positives = np.rint(curve.fpr * curve.n_non_members).astype(np.int64)
    true_positives = np.rint(curve.tpr * curve.n_members).astype(np.int64)
    last_of_fpr = np.append(np.diff(false_positives) > 0, True)
    false_positives, true_positives = false_positives[last_of_fpr], true_positives[last_of_fpr]
    rises = np.append(True, np.diff(true_positives) > 0)
    rises[-1] = True
    false_positives, true_positives = false_positives[rises], true_positives[rises]
    if false_positives.size <= most:
        return false_positives, true_positives

    whole = most // 2
    spread = np.geomspace(false_positives[whole], false_positives[-1], most - whole)
    rates = false_positives / curve.n_non_members
    keep = np.unique(
        np.concatenate(
            [
                np.arange(whole),
                np.searchsorted(false_positives, spread, side="right") - 1,
                np.searchsorted(rates, np.asarray(fprs, dtype=np.float64), side="right") - 1,
                np.array([false_positives.size - 1]),
            ]
        )
    )
    keep = keep[keep >= 0]
    return false_positives[keep], true_positives[keep]


def plot_data(ranking: TargetRanking, labelled: Sequence[LabelledScores]) -> dict[str, Any]:
    """Collect what the page needs to draw one target, in the order of the ranking.

    Returns
    -------
    dict
        JSON values only: the largest class sizes, and for each curve its name, class sizes,
        counts, and whether it is shown at first.
    """
    own = {entry.attack: entry for entry in labelled if entry.target == ranking.target}
    curves: list[dict[str, Any]] = []
    for metrics in ranking.measured:
        if metrics.attack not in own:
            continue
        entry = own[metrics.attack]
        curve = roc_curve(entry.scores, entry.is_member)
        false_positives, true_positives = step_points(curve, [t.max_fpr for t in metrics.tpr])
        curves.append(
            {
                "name": metrics.attack,
                "members": curve.n_members,
                "nonMembers": curve.n_non_members,
                "fp": false_positives.tolist(),
                "tp": true_positives.tolist(),
                "shown": len(curves) < SHOWN_AT_FIRST,
            }
        )
    return {
        "curves": curves,
        "members": max((curve["members"] for curve in curves), default=0),
        "nonMembers": max((curve["nonMembers"] for curve in curves), default=0),
    }
