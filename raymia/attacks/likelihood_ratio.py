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
    records.

    Parameters
    ----------
    fixed_variance : one variance for all records, and 1 where no record has two shadows of a kind.
    """

    fixed_variance: bool = True

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
class Online(AmongShadows):
    """LiRA, online: log-likelihood under shadows with the record, less that under the others."""

    name = "lira"
    title = "LiRA, online"

    def score(self, evidence: Any) -> Scores:
        phi, shadows, is_in = self.statistics(evidence)
        return log_normal(phi, *moments(shadows, is_in, self.fixed_variance)) - log_normal(
            phi, *moments(shadows, ~is_in, self.fixed_variance)
        )


@dataclass(frozen=True)
class Offline(AmongShadows):
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
