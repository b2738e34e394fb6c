"""Attacks that compare log p of the tokens with what the model itself expected of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_VARIANCE, Attack, Scores, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class FastDetect(Attack):
    """Log-probability of the record, standardized as a whole (Fast-DetectGPT; Bao et al., 2024).

    Mean and variance of each position are those of log p(z) for z drawn from p there, and positions
    count as independent. It is the paper's closed form with one model for scoring and sampling. The
    summed variance is at least 1e-6. No score without a scored token.
    """

    name = "fast_detect"
    title = "Fast-DetectGPT"
    source = "Bao et al. 2024, arXiv 2310.05130"
    formula = "[sum_t log p(x_t | x_<t) - sum_t mu_t] / sqrt(sum_t sigma_t^2)"
    needs = frozenset({"moments"})

    def score(self, evidence: TextEvidence) -> Scores:
        tokens = evidence.target.tokens
        excess = tokens.log_prob.astype(np.float64) - tokens.mean_log_prob
        variance = tokens.std_log_prob.astype(np.float64) ** 2
        per_record = zip(tokens.per_record(excess), tokens.per_record(variance), strict=True)
        return np.array([_standardized(e, v) for e, v in per_record])


def _standardized(excess: npt.NDArray[np.floating], variance: npt.NDArray[np.floating]) -> float:
    if len(excess) == 0:
        return float("nan")
    return float(excess.sum() / np.sqrt(max(variance.sum(), MIN_VARIANCE)))
