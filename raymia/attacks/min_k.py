"""Attacks on the least likely tokens of the record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_VARIANCE, Attack, Scores, register
from raymia.evidence.text import TextEvidence


def mean_of_lowest(values: npt.NDArray[np.floating], share: float) -> float:
    """Mean of the lowest share of the values, at least one of them; NaN where there are none."""
    if len(values) == 0:
        return float("nan")
    count = count_of(share, values)
    return float(np.partition(values.astype(np.float64), count - 1)[:count].mean())


def count_of(share: float, values: npt.NDArray[np.floating]) -> int:
    """How many of the values a share is: rounded down, at least one."""
    return max(1, int(share * len(values)))


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
    needs = frozenset({"moments"})

    def score(self, evidence: TextEvidence) -> Scores:
        tokens = evidence.target.tokens
        sigma = np.maximum(tokens.std_log_prob, np.float32(np.sqrt(MIN_VARIANCE)))
        standardized = (tokens.log_prob - tokens.mean_log_prob) / sigma
        return np.array([mean_of_lowest(v, self.share) for v in tokens.per_record(standardized)])


@register
@dataclass(frozen=True)
class Surp(_LowestShare):
    """Min-K% over the positions where the model was sure of something else (Zhang & Wu, 2024).

    Of the lowest share of log-probabilities, counted as in Min-K% and with all that equal the last
    of them, the tokens count at whose position the entropy of p is below the bound. Where there is
    none the bound is dropped and the score is Min-K%'s. The benchmark's sentinel of -100 would call
    such a record the surest non-member, although nothing in it was confidently mispredicted, and
    the best value there is would reward a text that the model understands nowhere. No score
    without a scored token.

    Parameters
    ----------
    share : of the record's tokens, in (0, 1].
    max_entropy : bound on the entropy, in nats, above 0.
    """

    share: float = 0.4
    max_entropy: float = 2.0

    name = "surp"
    title = "SURP"
    source = "Zhang & Wu 2024, arXiv 2407.21248"
    formula = (
        "mean of log p(x_t | x_<t) over the lowest k % where the entropy of p is below a bound"
    )
    needs = frozenset({"moments"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_entropy > 0:
            raise ValueError(f"max_entropy should be above 0, but got {self.max_entropy}")

    def score(self, evidence: TextEvidence) -> Scores:
        tokens = evidence.target.tokens
        pairs = zip(
            tokens.per_record(tokens.log_prob),
            tokens.per_record(-tokens.mean_log_prob),  # H(p) = -E_p[log p]
            strict=True,
        )
        return np.array([self._mean_of_surprising(log_prob, h) for log_prob, h in pairs])

    def _mean_of_surprising(
        self, log_prob: npt.NDArray[np.floating], entropy: npt.NDArray[np.floating]
    ) -> float:
        if len(log_prob) == 0:
            return float("nan")
        last = count_of(self.share, log_prob) - 1
        is_low = log_prob <= np.partition(log_prob, last)[last]
        surprising = log_prob[is_low & (entropy < self.max_entropy)]
        if len(surprising) == 0:
            return mean_of_lowest(log_prob, self.share)
        return float(surprising.mean(dtype=np.float64))
