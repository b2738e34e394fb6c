"""Attacks on the least likely tokens of the record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, register
from raymia.evidence.text import TextEvidence

MIN_VARIANCE = 1e-6
"""Floor of the variance of log p, so that a model that is sure of a token gives no infinity."""


def mean_of_lowest(values: npt.NDArray[np.floating], share: float) -> float:
    """Mean of the lowest share of the values, at least one of them; NaN where there are none."""
    if len(values) == 0:
        return float("nan")
    count = max(1, int(share * len(values)))
    return float(np.partition(values.astype(np.float64), count - 1)[:count].mean())


@dataclass(frozen=True)
class _LowestShare(Attack):
    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share should be in (0, 1], but got {self.share}")


@register
@dataclass(frozen=True)
class MinK(_LowestShare):
    """Mean of the lowest share of token log-probabilities (Shi et al., ICLR 2024).

    ``max(1, int(share * tokens))`` tokens are taken. No score without a scored token.
    """

    name = "min_k"
    title = "Min-K%"
    source = "Shi et al. 2024, arXiv 2310.16789"
    formula = "mean of the lowest k % of log p(x_t | x_<t)"

    def score(self, evidence: TextEvidence) -> Scores:
        tokens = evidence.target.tokens
        return np.array([mean_of_lowest(v, self.share) for v in tokens.per_record(tokens.log_prob)])


@register
@dataclass(frozen=True)
class MinKPlusPlus(_LowestShare):
    """Min-K% on log-probabilities standardized per position (Zhang et al., ICLR 2025).

    Mean and standard deviation are those of log p(z) for z drawn from p at the position, the
    variance at least 1e-6. No score without a scored token.
    """

    name = "min_k_plus_plus"
    title = "Min-K%++"
    source = "Zhang et al. 2025, arXiv 2404.02936"
    formula = "mean of the lowest k % of (log p(x_t | x_<t) - mu_t) / sigma_t"

    def score(self, evidence: TextEvidence) -> Scores:
        tokens = evidence.target.tokens
        sigma = np.maximum(tokens.std_log_prob, np.float32(np.sqrt(MIN_VARIANCE)))
        standardized = (tokens.log_prob - tokens.mean_log_prob) / sigma
        return np.array([mean_of_lowest(v, self.share) for v in tokens.per_record(standardized)])
