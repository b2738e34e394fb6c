"""LiRA for few shadows: each record's variance is drawn to that of all, and normal becomes t.

Over the shadows of one kind, with the record or without it, the statistic of record i is normal
with its own mean and variance. All means are as likely beforehand; the variances are scaled inverse
chi-square with nu degrees of freedom around s^2. Of n shadows, with a sum of squares q around their
mean and d = n - 1:

- the variance is again scaled inverse chi-square, with nu + d degrees of freedom around
  v = (nu s^2 + q) / (nu + d);
- one more model's statistic has Student's t distribution with nu + d degrees of freedom around the
  mean of the n, of scale sqrt(v (1 + 1 / n)): the mean is not known exactly either;
- q / (d s^2) has an F distribution with d and nu degrees of freedom, and by that nu and s^2 are
  those under which all the q are likeliest.

docs/statistics.md says what this is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_VARIANCE, Scores
from raymia.attacks.likelihood_ratio import AmongShadows, spread

MIN_DEGREES, MAX_DEGREES = 0.5, 1e4
"""Between which the prior's degrees of freedom are looked for; with the most of them all records
have one variance."""

FAR, TERMS = 1e-100, 10
"""Chances below the first are taken from so many terms of a series."""


@dataclass(frozen=True)
class Prior:
    """What is known beforehand of a record's variance: scaled inverse chi-square."""

    degrees: float
    variance: float


@dataclass(frozen=True)
class _Student(AmongShadows):
    """Base of attacks for which a statistic has Student's t distribution over shadows.

    Parameters
    ----------
    prior_degrees, prior_variance : of the prior; default: estimated on all records.
    """

    prior_degrees: float | None = None
    prior_variance: float | None = None

    def __post_init__(self) -> None:
        given = (self.prior_degrees, self.prior_variance)
        if (given[0] is None) != (given[1] is None):
            raise ValueError("prior_degrees and prior_variance belong together; give both or none")
        if any(value is not None and value <= 0 for value in given):
            raise ValueError(f"a prior should have numbers above 0, but got {given}")

    @property
    def looks_at_all(self) -> bool:
        return self.prior_degrees is None

    def standardized(
        self, phi: Scores, shadows: Scores, chosen: npt.NDArray[np.bool_]
    ) -> tuple[Scores, Scores, Scores]:
        """What has Student's t distribution if the target is as the chosen shadows are, its degrees
        of freedom, and the scale it was divided by, [records]; NaN without a chosen shadow."""
        mean, squares, counts = spread(shadows, chosen)
        free = np.maximum(counts - 1, 0)
        prior = self._prior(squares, free)
        degrees = prior.degrees + free
        variance = (prior.degrees * prior.variance + squares) / degrees
        n = np.where(counts > 0, counts, np.nan)
        scale = np.sqrt(np.maximum(variance, MIN_VARIANCE) * (1 + 1 / n))
        return (phi - mean) / scale, degrees, scale

    def _prior(self, squares: Scores, free: npt.NDArray[np.int64]) -> Prior:
        if self.prior_degrees is None or self.prior_variance is None:
            return likeliest_prior(squares, free)
        return Prior(self.prior_degrees, self.prior_variance)


@dataclass(frozen=True)
class StudentOnline(_Student):
    """Log-density under shadows with the record, less that under the others."""

    name = "lira_t"
    title = "LiRA with Student's t, online"

    def score(self, evidence: Any) -> Scores:
        from scipy.stats import t

        phi, shadows, is_in = self.statistics(evidence)
        parts = []
        for chosen in (is_in, ~is_in):
            value, degrees, scale = self.standardized(phi, shadows, chosen)
            parts.append(t.logpdf(value, degrees) - np.log(scale))
        scores: Scores = parts[0] - parts[1]
        return scores


@dataclass(frozen=True)
class StudentOffline(_Student):
    """Log-odds that a model without the record has a lower statistic."""

    name = "lira_t_offline"
    title = "LiRA with Student's t, offline"

    def score(self, evidence: Any) -> Scores:
        phi, shadows, is_in = self.statistics(evidence)
        value, degrees, _ = self.standardized(phi, shadows, ~is_in)
        return log_odds_below(value, degrees)


def log_odds_below(value: Scores, degrees: Scores) -> Scores:
    """Log-odds that what has Student's t distribution is below some values; finite where they are.

    Parameters
    ----------
    value, degrees : and the degrees of freedom of each, [values].

    Examples
    --------
    >>> log_odds_below(np.array([-1e3, 0.0, 1e3]), np.full(3, 1e4)).round(1).tolist()
    [-23081.1, 0.0, 23081.1]
    """
    tail = _log_tail(np.abs(value), degrees)
    odds: Scores = np.sign(value) * (np.log1p(-np.exp(tail)) - tail)
    return odds


def _log_tail(away: Scores, degrees: Scores) -> Scores:
    """Logarithm of the chance to be above values of at least 0.

    Far out the chance is no float, and its logarithm is taken from that of the density f:
    P(t > a) = f(a) (1 + a^2 / nu) / a F(1, 1/2; nu / 2 + 1; -nu / a^2) with F hypergeometric (DLMF
    8.17.8 and 15.8.1). Normal tails are lighter, so what is less likely than 1e-100 is beyond 21,
    where a term is at most (2 k + 1) / 441 of the one before; ten are all that a float holds.
    """
    from scipy.stats import t

    chance = t.sf(away, degrees)
    is_far = chance < FAR
    tail: Scores = np.log(np.where(is_far, FAR, chance))
    a, nu = away[is_far], degrees[is_far]
    series = np.ones_like(a)
    for k in reversed(range(TERMS)):
        series = 1 - (k + 0.5) / (nu / 2 + 1 + k) * (nu / a**2) * series
    tail[is_far] = t.logpdf(a, nu) + np.log((1 / a + a / nu) * series)
    return tail


def likeliest_prior(squares: Scores, free: npt.NDArray[np.int64]) -> Prior:
    """The prior under which the sums of squares of all records are likeliest.

    Parameters
    ----------
    squares : of each record's statistics around their mean, [records].
    free : their degrees of freedom, [records]; those of 0 say nothing.

    Returns
    -------
    The same for any order of the records. A variance of 1 for all where no record has a degree of
    freedom.

    Examples
    --------
    >>> likeliest_prior(np.array([0.0, 0.0]), np.array([0, 0]))
    Prior(degrees=10000.0, variance=1.0)
    """
    from scipy.optimize import minimize
    from scipy.special import betaln, digamma

    used = free > 0
    order = np.lexsort((free[used], squares[used]))
    q, d = squares[used][order], free[used][order].astype(float)
    if len(q) == 0:
        return Prior(MAX_DEGREES, 1.0)
    pooled = max(float(q.sum() / d.sum()), MIN_VARIANCE)
    kinds, counts = np.unique(d, return_counts=True)

    def unlikeliness(at: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """Minus the log-likelihood but for what is constant, and its derivatives."""
        nu, variance = np.exp(at)
        w = nu * variance
        logs, shares = np.log1p(q / w), q / (w + q)
        value = counts @ betaln(kinds / 2, nu / 2) + (d * np.log(w) + (d + nu) * logs).sum() / 2
        by_w = (d - (d + nu) * shares).sum() / 2
        by_nu = nu * (counts @ (digamma(nu / 2) - digamma((kinds + nu) / 2)) + logs.sum()) / 2
        return float(value), np.array([by_nu + by_w, by_w])

    found = minimize(
        unlikeliness,
        np.log([4.0, pooled]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(np.log(MIN_DEGREES), np.log(MAX_DEGREES)), (np.log(pooled * 1e-6), None)],
    )
    degrees, variance = np.exp(found.x)
    return Prior(float(degrees), float(variance))
