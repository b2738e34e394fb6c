"""One-sided limits of what an attack achieves, at as many levels as later comparisons may need.

A release gate compares several attacks on several checkpoints with one number. How many is known
only when the gate is decided, so limits are kept at a ladder of error rates, `LADDER`, each a
quarter of the one before. Between two steps a limit is read off by the normal quantile of the
error, on which limits are nearly straight; where it jumps from one step to the next, the limit of
the next, smaller error is taken, which holds for the larger as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np
import scipy
from scipy import special

from raymia.metrics.roc import FloatArray, RocCurve
from raymia.metrics.summary import Limits

LADDER: tuple[float, ...] = tuple(0.05 / 4**step for step in range(11))
"""Error rates of the limits that are kept: 5 % for one comparison, and for up to 1,048,576 of them.
Earlier runs have the first eight."""
STRAIGHT = 0.8
"""Between two steps of which the wider leaves less than this share of the other, a limit jumps."""
DIGITS = 6
_QUANTILES = -special.ndtri(LADDER)
_CELL = 0.25
"""Width of the cells in which non-members above the threshold are counted, in standard deviations
of their number."""
_FARTHEST = 5.5
_HALVINGS = 14


class Limited(TypedDict):
    """The fields of a `LimitedEstimate`."""

    value: float
    low: float
    high: float
    limits: Limits


def limited(value: float, limits: FloatArray) -> Limited:
    """Put a number and its limits together.

    Parameters
    ----------
    limits : ndarray of shape (2, 1 + steps of the ladder)
        Lower and upper limits; the first of each make the interval.
    """
    low, high = limits
    unit = 10.0**DIGITS  # the ladder is rounded outwards: it is kept many times over
    return {
        "value": value,
        "low": float(low[0]),
        "high": float(high[0]),
        "limits": Limits(
            low=(np.floor(low[1:] * unit) / unit).tolist(),
            high=(np.ceil(high[1:] * unit) / unit).tolist(),
        ),
    }


def at_error(kept: Sequence[float], error: float) -> float | None:
    """Read the limit at an error rate off the ladder; None beyond the last step that was kept.

    The lower limit of a rate falls to 0 at once where the non-members become too few to show any,
    see `tpr_limits`, and an upper one rises to 1. Nobody knows where between two steps that is, so
    there, and at every other jump, the wider limit is taken.

    Examples
    --------
    >>> at_error([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0], 0.05 / 4)
    0.4
    """
    if error >= LADDER[0] * (1 - 1e-9):
        return kept[0]
    if error < LADDER[len(kept) - 1] * (1 - 1e-9):
        return None
    step = LADDER.index(kept_error(error))
    narrow, wide = kept[step - 1], kept[step]
    left, right = (narrow, wide) if wide <= narrow else (1.0 - narrow, 1.0 - wide)
    if right < STRAIGHT * left:
        return wide
    return float(np.interp(-special.ndtri(error), _QUANTILES[: len(kept)], kept))


def kept_error(error: float) -> float:
    """The largest error rate of the ladder that is no larger than this one; the last for all that
    are beyond it."""
    return next((kept for kept in LADDER if kept <= error * (1 + 1e-9)), LADDER[-1])


def tpr_limits(curve: RocCurve, max_fpr: float, errors: Sequence[float]) -> FloatArray:
    """Give lower and upper limits of the true positive rate at a false positive rate.

    The truth is the share of members above the threshold that a share `max_fpr` of all non-members
    is above. How many of the n non-members at hand are above it is a binomial number K. If it were
    known to be k, the members above it would be at least those above the k-th highest non-member,
    and at most those that reach the next one, and Clopper and Pearson's test of these counts would
    say which rates are possible. The p-value of a rate is the mean of these tests over K.

    Nothing is assumed about the scores, so few non-members say little: with a chance of
    (1 - max_fpr)^n none is above the threshold, and then every member may be below it. Where that
    chance is larger than the error, the lower limit is 0.

    Parameters
    ----------
    errors : one-sided error rates, in (0, 1).

    Returns
    -------
    ndarray of shape (2, n_errors): lower limits, then upper ones.
    """
    n, m = curve.n_non_members, curve.n_members
    first, last, weights = _cells(n, max_fpr)
    false_positives = np.rint(curve.fpr * n)
    hits = np.rint(curve.tpr * m)
    above = hits[np.maximum(np.searchsorted(false_positives, first, side="left") - 1, 0)]
    following = np.searchsorted(false_positives, np.minimum(last + 1, n), side="left")
    reaching = np.where(last >= n, m, hits[following])
    low = _lower(above, m, weights, errors)
    high = 1.0 - _lower(m - reaching, m, weights, errors)
    return np.stack([low, high])


@lru_cache(maxsize=256)  # of few sizes and rates, for many attacks
def _cells(n: int, rate: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cut the binomial numbers of `n` trials into ranges: their ends and chances."""
    spread = math.sqrt(n * rate * (1.0 - rate))
    edges = n * rate + spread * np.arange(-_FARTHEST, _FARTHEST + _CELL, _CELL)
    # The right tail of a binomial number of few trials is longer than a normal one's.
    far = scipy.stats.binom.isf(1e-9, n, rate)
    inner = np.unique(np.clip(np.append(np.floor(edges), np.arange(min(n, 12))), 0, n - 1))
    last = np.append(inner[inner < far], n).astype(np.float64)
    first = np.append(0.0, last[:-1] + 1)
    below = special.bdtr(last, n, rate)
    return first, last, np.diff(np.append(0.0, below))


def _lower(hits: FloatArray, of: int, weights: FloatArray, errors: Sequence[float]) -> FloatArray:
    """Rates at which the mean chance of so many hits, or more, equals each error."""
    wanted = np.asarray(errors, np.float64)
    some = np.maximum(hits, 1.0)
    certain = hits == 0

    def chance(rate: FloatArray) -> FloatArray:
        tails = special.betainc(some, of - some + 1.0, rate[:, None])
        found: FloatArray = np.where(certain, 1.0, tails) @ weights
        return found

    low = np.zeros(wanted.size)
    high = np.full(wanted.size, special.betaincinv(some.max(), of - some.max() + 1.0, 0.999))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        possible = chance(middle) > wanted
        low, high = np.where(possible, low, middle), np.where(possible, middle, high)
    return low
