"""LiRA, whatever the records are: a statistic of the target among the same of shadows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_VARIANCE, Attack, Scores, answered


@dataclass(frozen=True)
class AmongShadows(Attack):
    """Base of attacks that compare the target with shadows: models trained as it was, on known
    records."""

    needs = frozenset({"shadows"})

    @abstractmethod
    def statistic(self, model: Any) -> Scores:
        """What is taken as normal over shadows, [records]; higher where the model knows a record.

        Parameters
        ----------
        model : the answers of the target or of a shadow.
        """

    def statistics(self, evidence: Any) -> tuple[Scores, Scores, npt.NDArray[np.bool_]]:
        """The statistic of the target [records] and of the shadows [shadows, records], and which
        shadow was trained on which record."""
        if not evidence.shadows:
            raise ValueError("this attack needs the evidence of shadows")
        return (
            self.statistic(answered(evidence.target)),
            np.stack([self.statistic(shadow.model) for shadow in evidence.shadows]),
            np.stack([shadow.is_in for shadow in evidence.shadows]),
        )


@dataclass(frozen=True)
class _Normal(AmongShadows):
    """Base of attacks for which a statistic is normal over shadows.

    Parameters
    ----------
    fixed_variance : one variance for all records, and 1 where no record has two shadows of a kind.
    """

    fixed_variance: bool = True

    @property
    def looks_at_all(self) -> bool:
        return self.fixed_variance


@dataclass(frozen=True)
class Online(_Normal):
    """LiRA, online: log-likelihood under shadows with the record, less that under the others."""

    name = "lira"
    title = "LiRA, online"

    def score(self, evidence: Any) -> Scores:
        phi, shadows, is_in = self.statistics(evidence)
        return log_normal(phi, *moments(shadows, is_in, self.fixed_variance)) - log_normal(
            phi, *moments(shadows, ~is_in, self.fixed_variance)
        )


@dataclass(frozen=True)
class Offline(_Normal):
    """LiRA, offline: standard deviations above the shadows without the record."""

    name = "lira_offline"
    title = "LiRA, offline"

    def score(self, evidence: Any) -> Scores:
        phi, shadows, is_in = self.statistics(evidence)
        mean, variance = moments(shadows, ~is_in, self.fixed_variance)
        scores: Scores = (phi - mean) / np.sqrt(variance)
        return scores


def moments(shadows: Scores, chosen: npt.NDArray[np.bool_], fixed: bool) -> tuple[Scores, Scores]:
    """Mean and variance over the chosen shadows, [records]; NaN where they cannot be had.

    Parameters
    ----------
    shadows : [shadows, records], NaN where a shadow has no statistic.
    chosen : [shadows, records], which to take.
    fixed : one variance for all records, and 1 where no record has two chosen shadows.

    Examples
    --------
    >>> shadows = np.array([[1.9], [2.1], [0.0], [0.2]])
    >>> without = np.array([[False], [False], [True], [True]])
    >>> [part.round(2).tolist() for part in moments(shadows, without, fixed=False)]
    [[0.1], [0.02]]
    """
    mean, squares, counts = spread(shadows, chosen)
    if fixed:
        free = np.nansum(np.maximum(counts - 1, 0))
        variance = np.full(len(mean), squares[counts > 0].sum() / free if free else 1.0)
    else:
        variance = squares / np.where(counts > 1, counts - 1, np.nan)
    return mean, np.maximum(variance, MIN_VARIANCE)


def spread(
    shadows: Scores, chosen: npt.NDArray[np.bool_]
) -> tuple[Scores, Scores, npt.NDArray[np.int64]]:
    """Mean, sum of squares around it, and count over the chosen shadows, [records]; see
    :func:`moments`."""
    used = chosen & ~np.isnan(shadows)
    counts = used.sum(axis=0)
    mean = np.where(used, shadows, 0.0).sum(axis=0) / np.where(counts > 0, counts, np.nan)
    squares = np.where(used, (shadows - mean) ** 2, 0.0).sum(axis=0)
    return mean, squares, counts


def log_normal(x: Scores, mean: Scores, variance: Scores) -> Scores:
    """Logarithm of the normal density."""
    density: Scores = -0.5 * ((x - mean) ** 2 / variance + np.log(2 * np.pi * variance))
    return density
