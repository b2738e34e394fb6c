"""Which candidates of unknown membership may be called members.

A candidate's conformal p-value is the share of non-members that score as high as it does, itself
counted among them. If it is a non-member of their distribution, its score is as likely to have any
rank among theirs, so the p-value is too small no more often than it says. The p-values of an audit
share their non-members; Benjamini and Hochberg's procedure controls the false discovery rate on
them all the same (Bates, Candes, Lei, Romano and Sesia 2023, The Annals of Statistics 51,
theorems 1 and 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy

from raymia.metrics.roc import FloatArray, needed_non_members
from raymia.metrics.summary import CandidateClaims, ClaimsAtRate

ROUNDING = 1.0 + 1e-12
"""A bound that is met exactly is met, whatever the last bit of the product says."""


def conformal_p_values(candidates: FloatArray, non_members: FloatArray) -> FloatArray:
    """Give each candidate (1 + number of non-members that score as high) / (1 + non-members).

    Parameters
    ----------
    candidates, non_members : ndarrays of shape (n_candidates,) and (n_non_members,)
        Scores; NaN for none. Non-members without a score do not count. An infinite score is a fault
        of the attack: a candidate's is none, and a non-member's is as high as any.

    Returns
    -------
    ndarray of shape (n_candidates,)
        In (0, 1]; NaN where the candidate has no score or no non-member has one.

    Examples
    --------
    >>> conformal_p_values(np.array([2.5, 0.0]), np.array([0.0, 1.0, 2.0, 3.0])).tolist()
    [0.4, 1.0]
    """
    if not candidates.size:
        return np.empty(0)
    others = non_members[~np.isnan(non_members)]
    ascending = np.sort(np.where(np.isinf(others), np.inf, others))
    if not ascending.size:
        return np.full(candidates.size, np.nan)
    as_high = ascending.size - np.searchsorted(ascending, candidates, side="left")
    return np.where(np.isfinite(candidates), (1.0 + as_high) / (1.0 + ascending.size), np.nan)


def claim_candidates(
    candidates: FloatArray,
    non_members: FloatArray,
    *,
    target: str,
    attack: str,
    of: Literal["records", "groups"],
    rates: Sequence[float],
) -> CandidateClaims:
    """Count the candidates that may be claimed at each false discovery rate.

    Parameters
    ----------
    candidates, non_members : as of `conformal_p_values`
    target, attack, of : names for the result.
    rates : sequence of float
        False discovery rates, in (0, 1).
    """
    p_values = conformal_p_values(candidates, non_members)
    tested = p_values[~np.isnan(p_values)]
    adjusted = scipy.stats.false_discovery_control(tested) if tested.size else tested
    n_non_members = int(np.count_nonzero(~np.isnan(non_members)))
    n_candidates = int(np.count_nonzero(np.isfinite(candidates)))
    return CandidateClaims(
        target=target,
        attack=attack,
        of=of,
        n_candidates=n_candidates,
        n_non_members=n_non_members,
        n_unscored=candidates.size - n_candidates,
        claims=[
            ClaimsAtRate(
                rate=rate,
                claimed=int(np.count_nonzero(adjusted <= rate * ROUNDING)),
                fewest=_fewest(rate, n_candidates, n_non_members),
                needed_non_members=max(1, needed_non_members(rate) - 1),
            )
            for rate in rates
        ],
    )


def _fewest(rate: float, n_candidates: int, n_non_members: int) -> int | None:
    """With k claims the largest of their p-values must be within k rate / candidates, and none is
    below 1 / (1 + non-members)."""
    fewest = math.ceil(n_candidates / (rate * (1 + n_non_members)) / ROUNDING)
    return fewest if 1 <= fewest <= n_candidates else None
