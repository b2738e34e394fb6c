"""Quantile regression, whatever the records are: how far one is above what non-members like it
reach."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered

MIN_POPULATION = 20
"""Records below which a quantile is not fitted."""


@dataclass(frozen=True)
class ExcessOverQuantile(Attack):
    """Base of attacks that fit a quantile of the population's statistic, given what a record is
    like, and score the excess over it.

    Parameters
    ----------
    fpr : false-positive rate at which the quantile is taken, in (0, 1).
    """

    fpr: float = 0.01

    name = "quantile"
    title = "Quantile regression"
    min_population = MIN_POPULATION

    def __post_init__(self) -> None:
        if not 0 < self.fpr < 1:
            raise ValueError(f"fpr should be in (0, 1), but got {self.fpr}")

    @abstractmethod
    def covariates(self, evidence: Any) -> tuple[npt.NDArray[np.float64], Scores]:
        """What the quantile depends on, [records, covariates], and the statistic, [records]."""

    def score(self, evidence: Any) -> Scores:
        population = answered(evidence.population)
        if evidence.reference is None:
            population = replace(population, reference=None)
        known, values = self.covariates(population)
        return excess_over_quantile(known, values, *self.covariates(evidence), self.fpr)


def excess_over_quantile(
    known: npt.NDArray[np.float64],
    values: Scores,
    features: npt.NDArray[np.float64],
    scores: Scores,
    fpr: float,
) -> Scores:
    """How far scores are above the 1 - fpr quantile, which is fitted as a linear function.

    Parameters
    ----------
    known, values : what the quantile depends on, [population, covariates], and the population's
        scores.
    features, scores : the same of the records.

    Returns
    -------
    [records]; NaN where something is not finite, and everywhere if the population has fewer than
    20 usable rows.
    """
    from sklearn.linear_model import QuantileRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = np.isfinite(known).all(axis=1) & np.isfinite(values)
    judged = np.isfinite(features).all(axis=1) & np.isfinite(scores)
    excess = np.full(len(scores), np.nan)
    if fitted.sum() < MIN_POPULATION or not judged.any():
        return excess
    regressor = QuantileRegressor(quantile=1 - fpr, alpha=0.0)
    model = make_pipeline(StandardScaler(), regressor).fit(known[fitted], values[fitted])
    excess[judged] = scores[judged] - model.predict(features[judged])
    return excess
