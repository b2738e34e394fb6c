"""The empirical ROC curve and the numbers read from it.

A member is the positive class and a higher score means more likely a member. Nothing here
interpolates but the equal error rate, which is a crossing by definition: between two thresholds
there is no classifier, so a rate that no threshold reaches is never reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RocCurve:
    """One point per distinct score, preceded by the point at which nothing is called a member.

    Records with the same score cannot be told apart by a threshold and share one point.

    Attributes
    ----------
    fpr, tpr : ndarray of shape (n_points,)
        False and true positive rates in [0, 1], both non-decreasing, from (0, 0) to (1, 1).
    thresholds : ndarray of shape (n_points,)
        "Member" means ``score >= threshold``. Strictly decreasing; the first is infinity.
    n_members, n_non_members : int
        How many records of each kind the rates are fractions of.
    """

    fpr: FloatArray
    tpr: FloatArray
    thresholds: FloatArray
    n_members: int
    n_non_members: int


def checked(scores: NDArray[Any], is_member: NDArray[Any]) -> tuple[FloatArray, BoolArray]:
    """Check scores and labels.

    Parameters
    ----------
    scores : array of shape (n_records,)
        Finite numbers; higher means more likely a member.
    is_member : boolean array of shape (n_records,)
        Must hold at least one member and one non-member.

    Raises
    ------
    ValueError
        If the shapes differ, labels are not boolean, a score is not finite, or one of the two
        kinds of record is missing.
    """
    values = np.asarray(scores, dtype=np.float64)
    labels = np.asarray(is_member)
    if values.ndim != 1 or labels.shape != values.shape:
        raise ValueError(
            "Arguments `scores` and `is_member` should be one-dimensional and of the same length, "
            f"but got shapes {values.shape} and {labels.shape}."
        )
    if labels.dtype != np.bool_:
        raise ValueError(f"Argument `is_member` should be boolean, but got dtype {labels.dtype}.")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise ValueError(
            f"Argument `scores` should be finite, but {broken.size} of {values.size} are not; "
            f"the first is {values[broken[0]]} at position {broken[0]}."
        )
    n_members = int(labels.sum())
    if n_members in (0, labels.size):
        raise ValueError(
            "A ROC curve needs at least one member and one non-member, "
            f"but got {n_members} and {labels.size - n_members}."
        )
    return values, labels


def roc_curve(scores: NDArray[Any], is_member: NDArray[Any]) -> RocCurve:
    """Compute the ROC curve of one attack.

    Parameters
    ----------
    scores : array of shape (n_records,)
        Finite numbers; higher means more likely a member.
    is_member : boolean array of shape (n_records,)
        True for members. At least one member and one non-member.

    Raises
    ------
    ValueError
        See `checked`.

    Examples
    --------
    >>> curve = roc_curve(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    >>> curve.tpr.tolist(), curve.fpr.tolist()
    ([0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0])
    """
    values, labels = checked(scores, is_member)
    # Two sorts and a search in order: several times faster than carrying the labels along. In place
    # where it can be: of ten million records an array is 80 MB.
    ascending, members = np.sort(values), np.sort(values[labels])
    n_members, n_non_members = members.size, values.size - members.size
    higher = np.flatnonzero(ascending[1:] != ascending[:-1])
    fpr, tpr, thresholds = (np.zeros(higher.size + 2) for _ in range(3))
    first_of_tie = np.zeros(higher.size + 1, np.int64)
    np.add(higher[::-1], 1, out=first_of_tie[:-1])
    del higher
    thresholds[0] = np.inf
    np.take(ascending, first_of_tie, out=thresholds[1:], mode="clip")
    del ascending
    true_positives = np.searchsorted(members, thresholds[1:], side="left")
    np.subtract(n_members, true_positives, out=true_positives)
    np.divide(true_positives, n_members, out=tpr[1:])
    first_of_tie += true_positives
    np.subtract(values.size, first_of_tie, out=first_of_tie)  # false positives
    np.divide(first_of_tie, n_non_members, out=fpr[1:])
    return RocCurve(fpr, tpr, thresholds, n_members, n_non_members)


def auc(curve: RocCurve) -> float:
    """Area under the curve: the chance that a member outscores a non-member, ties counting half.

    Examples
    --------
    >>> auc(roc_curve(np.array([3.0, 2.0, 1.0, 0.5]), np.array([True, False, True, False])))
    0.75
    """
    heights = (curve.tpr[1:] + curve.tpr[:-1]) / 2
    return float(np.sum(np.diff(curve.fpr) * heights))


def tpr_at_fpr(curve: RocCurve, max_fpr: float) -> float:
    """Give the best true positive rate among thresholds whose false positive rate is in budget.

    Parameters
    ----------
    curve : RocCurve
    max_fpr : float
        The budget, in [0, 1]. A threshold that reaches it exactly is within it.

    Raises
    ------
    ValueError
        If `max_fpr` is outside [0, 1].

    Notes
    -----
    Taking the threshold whose false positive rate lies *nearest* to the budget, as some published
    code does, both overspends the budget and, where many thresholds share the nearest rate, may
    pick the worst of them.

    Examples
    --------
    >>> curve = roc_curve(np.array([3.0, 2.0, 1.0, 0.5]), np.array([True, False, True, False]))
    >>> [tpr_at_fpr(curve, budget) for budget in (0.0, 0.49, 0.5)]
    [0.5, 0.5, 1.0]
    """
    if not 0.0 <= max_fpr <= 1.0:
        raise ValueError(f"Argument `max_fpr` should be in [0, 1], but got {max_fpr}.")
    # Both rates rise together, so the last point within the budget is the best one.
    last = int(np.searchsorted(curve.fpr, max_fpr, side="right")) - 1
    return float(curve.tpr[last])


def one_minus_equal_error_rate(curve: RocCurve) -> float:
    """Give one minus the rate at which members and non-members are mistaken equally often.

    Where no threshold makes the two errors equal, chance decides between the two thresholds next to
    the crossing, as in the AUC, where ties count half. Scores that are all one give 0.5.

    Examples
    --------
    >>> curve = roc_curve(np.array([3.0, 2.0, 1.0, 0.5]), np.array([True, False, True, False]))
    >>> one_minus_equal_error_rate(curve)
    0.5
    """
    gap = curve.fpr + curve.tpr - 1.0  # from -1 to 1, non-decreasing
    after = int(np.argmax(gap >= 0.0))
    before = after - 1
    share = -gap[before] / (gap[after] - gap[before])
    return float(curve.tpr[before] + share * (curve.tpr[after] - curve.tpr[before]))


def allowed_false_positives(max_fpr: float, n_non_members: int) -> int:
    """Count the false positives that `n_non_members` can hold without exceeding `max_fpr`.

    This is ``floor(max_fpr * n_non_members)`` free of rounding: 0.29 of 100 is 29, though the
    product in floating point is 28.999... .

    Examples
    --------
    >>> allowed_false_positives(0.29, 100)
    29
    """
    allowed = math.floor(max_fpr * n_non_members)
    if (allowed + 1) / n_non_members <= max_fpr:
        return allowed + 1
    if allowed / n_non_members > max_fpr:
        return allowed - 1
    return allowed


def needed_non_members(max_fpr: float) -> int:
    """Give the smallest number of non-members of which one is no more than `max_fpr`.

    Examples
    --------
    >>> needed_non_members(0.001)
    1000
    """
    needed = math.ceil(1.0 / max_fpr)
    if needed > 1 and 1.0 / (needed - 1) <= max_fpr:
        return needed - 1
    if 1.0 / needed > max_fpr:
        return needed + 1
    return needed
