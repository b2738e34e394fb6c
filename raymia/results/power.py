"""What an audit would have found: the chance that a given leak is called one."""

from __future__ import annotations

import math

import numpy as np
import scipy
from scipy import special

from raymia.metrics.roc import allowed_false_positives
from raymia.results.chance import chance_of_rate, spread_of_chance

_POINTS = 64


def power_of_auc(auc: float, n_members: int, n_non_members: int, error: float) -> float:
    """The chance that an attack of this AUC is told from guessing at a p-value of `error`.

    Its spread is Hanley and McNeil's, of exponential scores (Radiology 143, 1982).

    Examples
    --------
    >>> round(power_of_auc(0.6, 200, 200, 0.05), 2)
    0.94
    """
    deviations = float(scipy.stats.norm.isf(error / 2))
    needed = 0.5 + deviations * spread_of_chance(n_members, n_non_members)
    above, below = auc / (2 - auc) - auc**2, 2 * auc**2 / (1 + auc) - auc**2
    variance = auc * (1 - auc) + (n_members - 1) * above + (n_non_members - 1) * below
    spread = math.sqrt(variance / (n_members * n_non_members))
    return float(scipy.stats.norm.sf((needed - auc) / spread))


def power_of_rate(
    tpr: float, max_fpr: float, n_members: int, n_non_members: int, error: float
) -> float:
    """The chance that an attack of this rate at a budget is told from guessing by it.

    The threshold's own false positive rate is a beta number; around the budget the rate is taken
    to be a power of it, the one that goes through the given point.
    """
    allowed = allowed_false_positives(max_fpr, n_non_members)
    needed = hits_needed(max_fpr, n_members, n_non_members, error)
    if needed is None:
        return 0.0
    places = (np.arange(_POINTS) + 0.5) / _POINTS
    fpr = special.betaincinv(allowed + 1.0, float(n_non_members - allowed), places)
    rate = fpr ** (math.log(tpr) / math.log(max_fpr))
    return float(np.mean(scipy.stats.binom.sf(needed - 1, n_members, rate)))


def hits_needed(max_fpr: float, n_members: int, n_non_members: int, error: float) -> int | None:
    """The fewest members above the threshold that chance does not explain; None for no number."""
    low, high = 0, n_members + 1
    while high - low > 1:
        middle = (low + high) // 2
        chance = chance_of_rate(middle / n_members, max_fpr, n_members, n_non_members)
        low, high = (low, middle) if chance <= error else (middle, high)
    return None if high > n_members else high
