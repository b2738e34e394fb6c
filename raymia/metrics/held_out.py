"""Thresholds chosen on one half of the records and judged on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raymia.metrics.delong import auc_spread_of
from raymia.metrics.intervals import (
    auc_interval,
    clopper_pearson,
    lower_limit,
    mean_of_two_rates,
    upper_limit,
)
from raymia.metrics.limits import LADDER, limited
from raymia.metrics.roc import (
    BoolArray,
    FloatArray,
    RocCurve,
    allowed_false_positives,
    auc,
    roc_curve,
)
from raymia.metrics.summary import (
    MIN_PER_CLASS,
    HeldOutAccuracy,
    HeldOutAuc,
    HeldOutRates,
    Precision,
    Rate,
)


@dataclass(frozen=True)
class Halves:
    """Scores of members and non-members, those that thresholds are chosen on and the others."""

    calibration_members: FloatArray
    calibration_non_members: FloatArray
    members: FloatArray
    non_members: FloatArray

    @classmethod
    def split(cls, scores: FloatArray, is_member: BoolArray, calibration: BoolArray) -> Halves:
        return cls(
            scores[calibration & is_member],
            scores[calibration & ~is_member],
            scores[~calibration & is_member],
            scores[~calibration & ~is_member],
        )

    @property
    def can_judge(self) -> bool:
        return bool(self.members.size and self.non_members.size)

    @property
    def can_choose(self) -> bool:
        return bool(self.calibration_members.size and self.calibration_non_members.size)

    @cached_property
    def calibration_curve(self) -> RocCurve:
        """The ROC curve of the half that thresholds are chosen on.

        Point i is what a threshold just above the score of point i + 1 comes to.
        """
        return _curve(self.calibration_members, self.calibration_non_members)


def auc_held_out(halves: Halves, *, confidence: float, fitted: bool = False) -> HeldOutAuc | None:
    """Measure the AUC on the half that is judged, and on the other for the choice of an attack.

    Parameters
    ----------
    fitted : whether the attack was fitted on the labels of these records.

    Returns
    -------
    HeldOutAuc or None
        None where a half has fewer than two members or non-members.
    """
    parts = (halves.calibration_members, halves.calibration_non_members,
             halves.members, halves.non_members)  # fmt: skip
    if min(part.size for part in parts) < MIN_PER_CLASS:
        return None
    curve = _curve(halves.members, halves.non_members)
    area = auc(curve)
    spread = auc_spread_of(curve)
    low, high = auc_interval(area, spread.fitted() if fitted else spread, confidence)
    return HeldOutAuc(
        value=area,
        low=low,
        high=high,
        calibration=auc(halves.calibration_curve),
        n_members=curve.n_members,
        n_non_members=curve.n_non_members,
    )


def rates_held_out(
    halves: Halves, max_fpr: float, *, priors: Sequence[float], confidence: float
) -> HeldOutRates | None:
    """Choose the threshold of a budget on one half of the non-members; judge it on the other half.

    The threshold is the score of the non-member after those the budget allows: records above it,
    not at it, are called members. No lower threshold is within the budget on that half.

    Returns
    -------
    HeldOutRates or None
        None where not one false positive is within the budget on the half, or nothing can be
        judged.
    """
    chosen_on = halves.calibration_non_members
    if not (halves.can_judge and chosen_on.size):
        return None
    allowed = allowed_false_positives(max_fpr, chosen_on.size)
    if allowed < 1:
        return None
    place = chosen_on.size - 1 - allowed
    threshold = float(np.partition(chosen_on, place)[place])
    tpr = rate(_above(halves.members, threshold), halves.members.size, confidence)
    fpr = rate(_above(halves.non_members, threshold), halves.non_members.size, confidence)
    return HeldOutRates(
        threshold=threshold,
        n_calibration=chosen_on.size,
        calibration_tpr=_above(halves.calibration_members, threshold)
        / halves.calibration_members.size
        if halves.calibration_members.size
        else None,
        tpr=tpr,
        fpr=fpr,
        ppv=[precision(tpr, fpr, prior, confidence) for prior in priors],
    )


def accuracy_held_out(halves: Halves, *, confidence: float) -> HeldOutAccuracy | None:
    """Choose the threshold with the best balanced accuracy on one half; judge it on the other.

    Returns
    -------
    HeldOutAccuracy or None
        None where a half lacks members or non-members.
    """
    if not (halves.can_judge and halves.can_choose):
        return None
    curve = halves.calibration_curve
    threshold = float(curve.thresholds[1 + np.argmax((curve.tpr - curve.fpr)[:-1])])
    found = _above(halves.members, threshold)
    spared = halves.non_members.size - _above(halves.non_members, threshold)
    of_members, of_others = (found, halves.members.size), (spared, halves.non_members.size)
    levels = [confidence, *(1.0 - 2.0 * error for error in LADDER)]
    limits = np.transpose([mean_of_two_rates(of_members, of_others, level) for level in levels])
    return HeldOutAccuracy(
        **limited((found / halves.members.size + spared / halves.non_members.size) / 2, limits),
        threshold=threshold,
        n_members=halves.members.size,
        n_non_members=halves.non_members.size,
    )


def rate(hits: int, of: int, confidence: float) -> Rate:
    """A rate with Clopper and Pearson's interval."""
    low, high = clopper_pearson(hits, of, confidence)
    return Rate(value=hits / of, low=low, high=high, hits=hits, of=of)


def precision(tpr: Rate, fpr: Rate, prior: float, confidence: float) -> Precision:
    """Give the positive predictive value, prior TPR / (prior TPR + (1 - prior) FPR).

    It rises with the one rate and falls with the other, so its limits are those of both rates. Each
    rate's limits are taken at half the risk, so that all of them hold together as often as
    `confidence` says.
    """

    def predictive(true: float, false: float) -> float:
        return prior * true / (prior * true + (1.0 - prior) * false)

    side = 1.0 - (1.0 - confidence) / 4
    low = predictive(
        float(lower_limit(tpr.hits, tpr.of, side)), float(upper_limit(fpr.hits, fpr.of, side))
    )
    high = predictive(
        float(upper_limit(tpr.hits, tpr.of, side)), float(lower_limit(fpr.hits, fpr.of, side))
    )
    value = predictive(tpr.value, fpr.value) if tpr.hits or fpr.hits else None
    return Precision(prior=prior, value=value, low=low, high=high)


def _curve(members: FloatArray, non_members: FloatArray) -> RocCurve:
    scores = np.concatenate([members, non_members])
    return roc_curve(scores, np.arange(scores.size) < members.size)


def _above(scores: FloatArray, threshold: float) -> int:
    return int(np.count_nonzero(scores > threshold))
