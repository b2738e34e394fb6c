"""Intervals of rates, and of what is made of rates.

How often each holds the truth is measured in docs/statistics.md, by tools/interval_coverage.py and,
on fewer made-up audits, by tests/metrics/test_coverage.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray
from scipy import special

from raymia.metrics.roc import FloatArray

FEW = 15
"""Records of a kind below which they do not show how much an AUC scatters."""
HALVINGS = 40


def lower_limit(hits: ArrayLike, of: ArrayLike, confidence: ArrayLike) -> FloatArray:
    """Give Clopper and Pearson's one-sided lower limit of a rate (Biometrika 26, 1934).

    Parameters
    ----------
    hits, of : numbers or arrays that broadcast, 0 <= hits <= of
    confidence : float or array
        Chance that the limit is below the rate, at least.
    """
    hits, of = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    some = np.where(hits > 0.0, hits, 1.0)
    error = 1.0 - np.asarray(confidence, np.float64)
    return np.where(hits > 0.0, special.betaincinv(some, of - some + 1.0, error), 0.0)


def upper_limit(hits: ArrayLike, of: ArrayLike, confidence: ArrayLike) -> FloatArray:
    """Give the one-sided upper limit of a rate; see `lower_limit`."""
    hits, of = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    return 1.0 - lower_limit(of - hits, of, confidence)


def clopper_pearson(hits: float, of: float, confidence: float) -> tuple[float, float]:
    """Give the two-sided interval of a rate, of equal tails; it holds at least as often as it says.

    Counts need not be whole: the beta distribution behind the interval is defined between them.

    Examples
    --------
    >>> low, high = clopper_pearson(0, 100, 0.95)
    >>> low, round(high, 4)
    (0.0, 0.0362)
    """
    side = 0.5 + _checked(confidence) / 2
    return float(lower_limit(hits, of, side)), float(upper_limit(hits, of, side))


def wilson(hits: float, of: float, confidence: float) -> tuple[float, float]:
    """Give the score interval of a rate (Wilson, JASA 22, 1927).

    Examples
    --------
    >>> low, high = wilson(95, 100, 0.95)
    >>> round(low, 4), round(high, 4)
    (0.8882, 0.9785)
    """
    z = special.ndtri(0.5 + _checked(confidence) / 2)  # stats.norm takes a hundred times as long
    low, high = _score_limits(hits / of, of, z)
    return float(low), float(high)


def _score_limits(rate: float, of: float, z: Any) -> tuple[Any, Any]:
    center = (rate + z**2 / (2 * of)) / (1 + z**2 / of)
    reach = z / (1 + z**2 / of) * np.sqrt(rate * (1 - rate) / of + z**2 / (4 * of**2))
    return np.maximum(0.0, center - reach), np.minimum(1.0, center + reach)


def mean_of_two_rates(
    first: tuple[int, int], second: tuple[int, int], confidence: float
) -> tuple[float, float]:
    """Give the interval of the mean of two independent rates, each given as (hits, of).

    Newcombe's hybrid of two score intervals (Statistics in Medicine 17, 1998, method 10), of a sum
    rather than a difference.

    Examples
    --------
    >>> low, high = mean_of_two_rates((56, 70), (32, 80), 0.95)
    >>> round(low, 4), round(high, 4)
    (0.5262, 0.6669)
    """
    low = high = 0.0
    for hits, of in (first, second):
        bottom, top = wilson(hits, of, confidence)
        low += (hits / of - bottom) ** 2
        high += (top - hits / of) ** 2
    mean = (first[0] / first[1] + second[0] / second[1]) / 2
    return max(0.0, mean - float(np.sqrt(low)) / 2), min(1.0, mean + float(np.sqrt(high)) / 2)


FITTED_SHARE = 0.4
"""Share of the records that count for the AUC of an attack that was fitted on their labels.

Cross-fitted, a record's score is made of the labels of others, and theirs of its own: each pair of
records counts twice. Where nothing leaks the AUC's variance is therefore up to 2 times that of
Mann and Whitney, if scores are linear in the labels. Of several classifiers it was 1.7 to 2.1 times
(tests/results/test_fitted_on_labels.py); 2.5 is assumed."""


@dataclass(frozen=True)
class AucSpread:
    """Variance of an AUC by DeLong: what the members at hand and the non-members at hand add to it.

    Attributes
    ----------
    of_members, of_non_members : the two parts.
    n_members, n_non_members : how many of each there are.
    """

    of_members: float
    of_non_members: float
    n_members: int
    n_non_members: int

    @property
    def variance(self) -> float:
        return self.of_members + self.of_non_members

    def fitted(self) -> AucSpread:
        """That of an attack that was fitted on the labels of these records."""
        return AucSpread(
            self.of_members / FITTED_SHARE,
            self.of_non_members / FITTED_SHARE,
            max(2, int(self.n_members * FITTED_SHARE)),
            max(2, int(self.n_non_members * FITTED_SHARE)),
        )

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the sum."""
        return degrees_of_sum(
            (self.of_members, self.n_members), (self.of_non_members, self.n_non_members)
        )

    @property
    def fewest(self) -> int:
        return min(self.n_members, self.n_non_members)


def degrees_of_sum(*parts: tuple[float, int]) -> float:
    """Degrees of freedom of a variance that is a sum of several, each with how many records it was
    learned from (Satterthwaite, Biometrics Bulletin 2, 1946)."""
    total = sum(part for part, _ in parts)
    return total**2 / sum(part**2 / (n - 1) for part, n in parts)


def auc_interval(auc: float, spread: AucSpread, confidence: float) -> tuple[float, float]:
    """Give the two-sided interval of an AUC; see `auc_limits`.

    Examples
    --------
    >>> low, high = auc_interval(0.9, AucSpread(0.0003, 0.0001, 100, 100), 0.95)
    >>> round(low, 3), round(high, 3)
    (0.845, 0.936)
    """
    low, high = auc_limits(auc, spread, [(1.0 - _checked(confidence)) / 2])
    return float(low[0]), float(high[0])


def auc_limits(auc: float, spread: AucSpread, errors: Sequence[float]) -> FloatArray:
    """Give lower and upper limits of an AUC: the wider of several, none of which holds everywhere.

    - DeLong's, on the scale of the logit (Pepe, The Statistical Evaluation of Medical Tests for
      Classification and Prediction, 2003, section 5.2), with Student's t. It learns the variance
      from the records, and near 1 a few records of the rarer kind do not show it.
    - Newcombe's score limits (Statistics in Medicine 25, 2006, 559-573, method 5): the AUCs at
      which the one at hand would be just as far off as the error allows, with the variance that
      Hanley and McNeil give for exponential scores. It is there at an AUC of 1 as well.
    - Where one kind has fewer than 15 records: the score limits of a rate of as many trials. No
      scores have a larger variance than AUC (1 - AUC) / fewest (van Dantzig 1951).
    - Where DeLong's variance is 0, as for scores that are all one: Clopper and Pearson's limits of
      as many trials.

    Parameters
    ----------
    errors : one-sided error rates, in (0, 1).

    Returns
    -------
    ndarray of shape (2, n_errors): lower limits, then upper ones.
    """
    side = np.asarray(errors, np.float64)
    z = -special.ndtri(side)
    found = [_newcombe(auc, spread, z)]
    if spread.variance <= 0.0:
        hits = auc * spread.fewest
        found.append(
            np.stack([lower_limit(hits, spread.fewest, 1.0 - side),
                      upper_limit(hits, spread.fewest, 1.0 - side)])
        )  # fmt: skip
    elif 0.0 < auc < 1.0:
        deviations = scipy.stats.t.isf(side, spread.degrees)
        reach = deviations * math.sqrt(spread.variance) / (auc * (1.0 - auc))
        middle = special.logit(auc)
        found.append(special.expit(np.stack([middle - reach, middle + reach])))
    if spread.fewest < FEW:
        found.append(np.stack(_score_limits(auc, spread.fewest, z)))
    low, high = zip(*found, strict=True)
    return np.stack([np.min(low, axis=0), np.max(high, axis=0)])


def _newcombe(auc: float, spread: AucSpread, z: FloatArray) -> FloatArray:
    m, n = spread.n_members, spread.n_non_members
    beyond = (m + n) / 2 - 1

    def possible(truth: FloatArray) -> Any:
        shape = (1.0 - truth) / (2.0 - truth) + truth / (1.0 + truth)
        variance = truth * (1.0 - truth) * (1.0 + beyond * shape) / (m * n)
        return np.abs(auc - truth) <= z * np.sqrt(variance)

    limits = []
    for end in (0.0, 1.0):
        outside, inside = np.full(z.size, end), np.full(z.size, auc)
        for _ in range(HALVINGS):
            middle = (outside + inside) / 2
            held = possible(middle)
            outside, inside = np.where(held, outside, middle), np.where(held, middle, inside)
        limits.append(outside)
    return np.stack(limits)


def percentile_interval(replicates: NDArray[Any], confidence: float) -> tuple[float, float]:
    """Cut equal tails off the replicates.

    Parameters
    ----------
    replicates : ndarray of shape (resamples,)
    confidence : float
        Share of the replicates to keep, in (0, 1), such as 0.95.

    Raises
    ------
    ValueError
        If `confidence` is outside (0, 1).
    """
    tail = (1.0 - _checked(confidence)) / 2
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return float(low), float(high)


def _checked(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"Argument `confidence` should be in (0, 1), but got {confidence}.")
    return confidence
