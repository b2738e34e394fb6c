"""Attacks on the least likely tokens of the record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import MIN_VARIANCE, Attack, Scores, register
from raymia.evidence.text import TextEvidence, TokenEvidence


def count_of(share: float, values: npt.NDArray[np.floating]) -> int:
    """How many of the values a share is: rounded down, at least one.

    Examples
    --------
    >>> [count_of(0.2, np.zeros(length)) for length in (1, 9, 10)]
    [1, 1, 2]
    """
    return max(1, int(share * len(values)))


def log_prob(tokens: TokenEvidence) -> npt.NDArray[np.floating]:
    return tokens.log_prob


def standardized(tokens: TokenEvidence) -> npt.NDArray[np.floating]:
    """Log-probabilities less their expectation under p, in standard deviations, [tokens]."""
    sigma = np.maximum(tokens.std_log_prob, np.float32(np.sqrt(MIN_VARIANCE)))
    standard: npt.NDArray[np.floating] = (tokens.log_prob - tokens.mean_log_prob) / sigma
    return standard


def counts_of(share: float, tokens: TokenEvidence) -> npt.NDArray[np.int64]:
    """How many tokens of each record a share is, [records]; see :func:`count_of`."""
    return np.maximum(1, (share * tokens.counts).astype(np.int64))


def means_of_lowest(ordered: Scores, tokens: TokenEvidence, share: float) -> Scores:
    """Mean of the lowest share of each record's tokens, at least one, [records]; NaN without any.

    Parameters
    ----------
    ordered : values of the tokens, the lowest of each record first.
    """
    filled = tokens.counts > 0
    means = np.full(len(filled), np.nan)
    if filled.any():
        taken = counts_of(share, tokens)[filled]
        starts = tokens.offsets[:-1][filled]
        # Sums between neighboring bounds, of which every other is of the lowest.
        bounds = np.column_stack([starts, starts + taken]).ravel()
        within = bounds[:-1] if bounds[-1] == len(ordered) else bounds
        means[filled] = np.add.reduceat(ordered, within)[::2] / taken
    return means


@dataclass(frozen=True)
class _LowestShare(Attack):
    """Looks at the lowest tokens alone.

    Parameters
    ----------
    share : of the record's tokens, in (0, 1].
    """

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
        return means_of_lowest(tokens.lowest_first(log_prob), tokens, self.share)


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
        return means_of_lowest(tokens.lowest_first(standardized), tokens, self.share)


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
        ordered = tokens.lowest_first(log_prob)
        scores = means_of_lowest(ordered, tokens, self.share)
        filled = tokens.counts > 0
        if not filled.any():
            return scores
        starts, counts = tokens.offsets[:-1][filled], tokens.counts[filled]
        highest = ordered[starts + counts_of(self.share, tokens)[filled] - 1]
        is_low = tokens.log_prob <= np.repeat(highest, counts)
        is_surprising = is_low & (-tokens.mean_log_prob < self.max_entropy)  # H(p) = -E_p[log p]
        found = np.add.reduceat(is_surprising, starts, dtype=np.int64)
        sums = np.add.reduceat(np.where(is_surprising, tokens.log_prob, np.float64(0)), starts)
        scores[filled] = np.divide(sums, found, out=scores[filled], where=found > 0)
        return scores
