"""Variance of the AUC, and the difference of two AUCs on the same records.

DeLong, DeLong and Clarke-Pearson 1988: the AUC is a mean over members of the share of non-members
below each, and a mean over non-members of the share of members above each. The spread of these
shares, the placements, gives the variance; their covariance between two attacks that scored the
same records gives that of the difference. Placements come from one sort (as in Sun and Xu 2014,
IEEE Signal Processing Letters 21).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from raymia.metrics.intervals import FITTED_SHARE, AucSpread, auc_interval, degrees_of_sum
from raymia.metrics.roc import BoolArray, FloatArray, IntArray, RocCurve

FEWEST_COMPARED = 5
"""Members, and non-members, with which a difference of two AUCs is tested. With fewer their spread
is too rough: with 2 members and 200 non-members the test of two attacks that guess would find a
difference at the 5 % level in 11 % of pairs."""
ROUNDING = 1e-12
"""A spread as small is none: placements that differ by one share differ in their last bits."""


@dataclass(frozen=True)
class Placements:
    """Where each record stands among those of the other kind, a tie counting half.

    Attributes
    ----------
    members : ndarray of shape (n_members,)
        Share of the non-members that each member scores above.
    non_members : ndarray of shape (n_non_members,)
        Share of the members that score above each non-member.
    """

    members: FloatArray
    non_members: FloatArray

    @property
    def auc(self) -> float:
        return float(self.members.mean())


@dataclass(frozen=True)
class AucDifference:
    """The AUC of one attack less that of another, on the same records.

    Attributes
    ----------
    value, low, high : the difference and its interval, by Student's t.
    p_value : two-sided, of the hypothesis that the AUCs are equal.
    """

    value: float
    low: float
    high: float
    p_value: float


def placements(scores: NDArray[Any], is_member: BoolArray) -> Placements:
    """Compute the placements of finite scores; both kinds of records must be there."""
    values = np.asarray(scores, dtype=np.float64)
    n_members = int(np.count_nonzero(is_member))
    n_others = values.size - n_members
    if not n_members or not n_others:
        raise ValueError(
            "An AUC needs at least one member and one non-member, "
            f"but got {n_members} and {n_others}."
        )
    order = np.argsort(values)
    starts = np.append(0, np.flatnonzero(np.diff(values[order])) + 1)
    of_members = np.add.reduceat(is_member[order], starts, dtype=np.int64)
    sizes = np.diff(starts, append=values.size)
    del starts
    shares = np.empty(values.size)
    shares[order] = np.repeat(_below(sizes - of_members, n_others), sizes)
    above = shares[is_member]
    shares[order] = np.repeat(_below(of_members, n_members), sizes)
    return Placements(above, 1.0 - shares[~is_member])


def _below(counts: IntArray, of: int) -> FloatArray:
    """Which share of all stands below each tied group, with half of those in it."""
    halves = counts / 2
    np.subtract(np.cumsum(counts), halves, out=halves)
    halves /= of
    return halves


def auc_spread(placed: Placements) -> AucSpread:
    """The parts of the AUC's variance; both kinds need two records."""
    return AucSpread(
        float(placed.members.var(ddof=1)) / placed.members.size,
        float(placed.non_members.var(ddof=1)) / placed.non_members.size,
        placed.members.size,
        placed.non_members.size,
    )


def auc_variance(placed: Placements) -> float:
    """Variance of the AUC; both kinds need two records."""
    return auc_spread(placed).variance


def beyond_placements(placed: Placements) -> float:
    """What the variance of the AUC of an attack that was fitted on the labels of these records has
    beyond DeLong's, see :data:`raymia.metrics.intervals.FITTED_SHARE`."""
    return (1.0 / FITTED_SHARE - 1.0) * auc_variance(placed)


def auc_spread_of(curve: RocCurve) -> AucSpread:
    """The parts of the variance of a curve's AUC: `auc_spread` without a record being looked at
    again.

    Records that share a point of the curve share their placement.
    """
    parts: list[float] = []
    for of_members, size in ((True, curve.n_members), (False, curve.n_non_members)):
        own, other = (curve.tpr, 1.0 - curve.fpr) if of_members else (curve.fpr, curve.tpr)
        weight, spread = np.diff(own), other[1:] + other[:-1]
        del other
        # In place: curves of ten million records are most of what is in memory.
        spread /= 2  # the placement
        # From the commonest placement, so that what is all one has a variance of exactly 0.
        spread -= spread[np.argmax(weight)]
        spread -= np.sum(weight * spread)
        spread *= spread
        spread *= weight
        parts.append(float(np.sum(spread)) / (size - 1))
    return AucSpread(parts[0], parts[1], curve.n_members, curve.n_non_members)


def auc_difference(
    scores: NDArray[Any],
    others: NDArray[Any],
    is_member: BoolArray,
    *,
    confidence: float = 0.95,
    fitted: tuple[bool, bool] = (False, False),
) -> AucDifference:
    """Compare two attacks on the same records (DeLong's paired test).

    Parameters
    ----------
    scores, others : float arrays of shape (n_records,)
        Finite scores of the two attacks, record by record.
    is_member : boolean array of shape (n_records,)
        At least two members and two non-members.
    confidence : float
        Nominal level of the interval, in (0, 1).
    fitted : whether each of the two was fitted on the labels of these records, which makes its AUC
        scatter more.

    Returns
    -------
    AucDifference
        Where the two rank all pairs alike there is no variance: the interval has no width and the
        p-value is 1. Where they differ without a variance, as a perfect attack and one whose scores
        are all one, the interval is that of the two AUCs apart and the p-value that of a sign test
        on as many pairs as there are records of the rarer kind.
    """
    both = placements(scores, is_member), placements(others, is_member)
    beyond = sum(
        beyond_placements(own) for own, is_fitted in zip(both, fitted, strict=True) if is_fitted
    )
    return difference_of(*both, confidence=confidence, beyond=beyond)


def difference_of(
    first: Placements, second: Placements, *, confidence: float = 0.95, beyond: float = 0.0
) -> AucDifference:
    """`auc_difference` of placements that are known.

    Parameters
    ----------
    beyond : variance of the AUCs that placements do not show, as that of a fit.
    """
    difference = Placements(first.members - second.members, first.non_members - second.non_members)
    value = first.auc - second.auc
    own = auc_spread(difference)
    spread = float(np.sqrt(own.variance + beyond))
    fewest = own.fewest
    if spread < ROUNDING and abs(value) > ROUNDING:
        low, high = auc_interval(first.auc, auc_spread(first), confidence)
        other_low, other_high = auc_interval(second.auc, auc_spread(second), confidence)
        return AucDifference(value, low - other_high, high - other_low, 2.0 ** (1 - fewest))
    if spread < ROUNDING:
        return AucDifference(value, value, value, 1.0)
    # Of few records the variance is itself a matter of chance, which the normal curve ignores.
    degrees = degrees_of_sum(
        (own.of_members, own.n_members), (own.of_non_members, own.n_non_members), (beyond, fewest)
    )
    reach = float(scipy.stats.t.ppf(0.5 + confidence / 2, degrees)) * spread
    p_value = 2.0 * float(scipy.stats.t.sf(abs(value) / spread, degrees))
    return AucDifference(value, value - reach, value + reach, p_value)
