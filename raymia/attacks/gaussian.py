"""Normal distributions of a statistic over shadows, which LiRA compares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_VARIANCE, Scores


def moments(shadows: Scores, chosen: npt.NDArray[np.bool_], fixed: bool) -> tuple[Scores, Scores]:
    """Mean and variance over the chosen shadows, [records]; NaN where they cannot be had.

    Parameters
    ----------
    shadows : [shadows, records], NaN where a shadow has no statistic.
    chosen : [shadows, records], which to take.
    fixed : one variance for all records, and 1 where no record has two chosen shadows.
    """
    used = chosen & ~np.isnan(shadows)
    counts = used.sum(axis=0)
    values = np.where(used, shadows, 0.0)
    enough = np.where(counts > 0, counts, np.nan)
    mean = values.sum(axis=0) / enough
    squares = np.where(used, (shadows - mean) ** 2, 0.0).sum(axis=0)
    if fixed:
        free = np.nansum(np.maximum(counts - 1, 0))
        variance = np.full(len(mean), squares[counts > 0].sum() / free if free else 1.0)
    else:
        variance = squares / np.where(counts > 1, counts - 1, np.nan)
    return mean, np.maximum(variance, MIN_VARIANCE)


def log_normal(x: Scores, mean: Scores, variance: Scores) -> Scores:
    """Logarithm of the normal density."""
    density: Scores = -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    return density


def online_score(phi: Scores, shadows: Scores, is_in: npt.NDArray[np.bool_], fixed: bool) -> Scores:
    """LiRA, online: log-likelihood under shadows with the record, less that under the others."""
    return log_normal(phi, *moments(shadows, is_in, fixed)) - log_normal(
        phi, *moments(shadows, ~is_in, fixed)
    )


def offline_score(
    phi: Scores, shadows: Scores, is_in: npt.NDArray[np.bool_], fixed: bool
) -> Scores:
    """LiRA, offline: standard deviations above the shadows without the record.

    Examples
    --------
    >>> shadows = np.array([[1.9], [2.1], [0.0], [0.2]])
    >>> is_in = np.array([[True], [True], [False], [False]])
    >>> offline_score(np.array([2.0]), shadows, is_in, fixed=False).round(2).tolist()
    [13.44]
    """
    mean, variance = moments(shadows, ~is_in, fixed)
    scores: Scores = (phi - mean) / np.sqrt(variance)
    return scores
