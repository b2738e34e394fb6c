"""What is drawn of an attack: its ROC curve thinned, and where scores lie, both as counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from raymia.metrics.roc import BoolArray, FloatArray, IntArray, RocCurve, roc_curve
from raymia.results.ranking import TargetRanking

MAX_POINTS = 500
BINS = 40
OUTSIDE = 0.005
"""Share of the scores at each end that the first and the last bin take in, however far out."""
SHOWN_AT_FIRST = 8
"""More curves than this overlap; the rest are a click away in the legend."""


def step_points(
    curve: RocCurve, fprs: Sequence[float] = (), max_points: int = MAX_POINTS
) -> tuple[IntArray, IntArray]:
    """Choose the points of a curve that are worth drawing as steps.

    Points inside a horizontal or vertical run are dropped, which changes nothing in the drawing.
    If more than `max_points` remain, the first half of them (the low false positive rates) is kept
    whole, then points evenly spread over the logarithm of the rate, then the points that the
    table's rates at `fprs` are read from. Every point drawn is a point of the curve.

    Parameters
    ----------
    curve : RocCurve
    fprs : sequence of float
        Budgets whose points must stay.
    max_points : int
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
    if false_positives.size <= max_points:
        return false_positives, true_positives

    whole = max_points // 2
    spread = np.geomspace(false_positives[whole], false_positives[-1], max_points - whole)
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


@dataclass(frozen=True)
class AttackCurves:
    """One attack against one target, as far as it is drawn; small whatever the audit's size.

    Attributes
    ----------
    n_members, n_non_members : with a score.
    false_positives, true_positives : int64 [points], steps of the ROC curve; see `step_points`.
    edges : float64 [bins + 1], of the histograms. The first and the last bin also hold what lies
        beyond; a single bin without width where all scores are one.
    members, non_members : int64 [bins], scores in each bin.
    """

    target: str
    attack: str
    n_members: int
    n_non_members: int
    false_positives: IntArray
    true_positives: IntArray
    edges: FloatArray
    members: IntArray
    non_members: IntArray


CURVES_SCHEMA = pa.schema(
    [
        ("target", pa.string()),
        ("attack", pa.string()),
        ("n_members", pa.int64()),
        ("n_non_members", pa.int64()),
        ("false_positives", pa.list_(pa.int64())),
        ("true_positives", pa.list_(pa.int64())),
        ("edges", pa.list_(pa.float64())),
        ("members", pa.list_(pa.int64())),
        ("non_members", pa.list_(pa.int64())),
    ]
)


def draw(
    scores: FloatArray,
    is_member: BoolArray,
    *,
    target: str,
    attack: str,
    fprs: Sequence[float] = (),
) -> AttackCurves:
    """Reduce finite scores to what is drawn of them.

    Parameters
    ----------
    scores, is_member : [n_records], at least one member and one non-member.
    fprs : rates whose points on the ROC curve must stay.
    """
    curve = roc_curve(scores, is_member)
    false_positives, true_positives = step_points(curve, fprs)
    low, high = np.quantile(scores, [OUTSIDE, 1.0 - OUTSIDE])
    edges = np.linspace(low, high, BINS + 1) if low < high else np.array([low, high])
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, edges.size - 2)
    return AttackCurves(
        target=target,
        attack=attack,
        n_members=curve.n_members,
        n_non_members=curve.n_non_members,
        false_positives=false_positives,
        true_positives=true_positives,
        edges=edges,
        members=np.bincount(bins[is_member], minlength=edges.size - 1),
        non_members=np.bincount(bins[~is_member], minlength=edges.size - 1),
    )


def curves_table(curves: Iterable[AttackCurves]) -> pa.Table:
    """Curves as a table with `CURVES_SCHEMA`, one row for each target and attack."""
    names = [field.name for field in fields(AttackCurves)]
    rows = [{name: getattr(entry, name) for name in names} for entry in curves]
    return pa.Table.from_pylist(rows, schema=CURVES_SCHEMA)


def curves_of(table: pa.Table) -> list[AttackCurves]:
    """Curves that `curves_table` laid out."""
    lists = [field for field in CURVES_SCHEMA if pa.types.is_list(field.type)]
    curves = []
    for row in table.to_pylist():
        for field in lists:
            row[field.name] = np.array(row[field.name], field.type.value_type.to_pandas_dtype())
        curves.append(AttackCurves(**row))
    return curves


def plot_data(ranking: TargetRanking, curves: Sequence[AttackCurves]) -> dict[str, Any]:
    """Collect what the page needs to draw one target, in the order of the ranking.

    Returns
    -------
    dict
        JSON values only: the largest class sizes, and for each curve its name, class sizes,
        counts, and whether it is shown at first.
    """
    own = {entry.attack: entry for entry in curves if entry.target == ranking.target}
    drawn: list[dict[str, Any]] = []
    for metrics in ranking.measured:
        if metrics.attack not in own:
            continue
        entry = own[metrics.attack]
        drawn.append(
            {
                "name": metrics.attack,
                "members": entry.n_members,
                "nonMembers": entry.n_non_members,
                "fp": entry.false_positives.tolist(),
                "tp": entry.true_positives.tolist(),
                "shown": len(drawn) < SHOWN_AT_FIRST,
            }
        )
    return {
        "curves": drawn,
        "members": max((curve["members"] for curve in drawn), default=0),
        "nonMembers": max((curve["nonMembers"] for curve in drawn), default=0),
    }
