"""Attacks that compare the record with texts that are known not to be members."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.attacks.quantile import ExcessOverQuantile
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Rmia(Attack):
    """Share of a population that the record dominates (Zarifzadeh et al., ICML 2024, offline).

    With q = exp(mean log p), the likelihood ratio of a text is q(x) over what models without it
    give on average, ``[(1 + a) q_ref(x) + (1 - a)] / 2``: the reference stands for the models
    trained without the record, and a corrects for those trained with it, which offline are not
    had. The score is the share of the population whose ratio is more than gamma times smaller.
    No score where a model has no scored token.

    Parameters
    ----------
    gamma : at least 1 asks for a clear margin.
    a : 0 to 1; 1 compares with the reference alone. The paper's 0.3 is for images, whose q is near
        1; q of a text is far below it, and (1 - a) / 2 would outweigh whatever the reference says.
    """

    gamma: float = 1.0
    a: float = 1.0

    name = "rmia"
    title = "RMIA, offline"
    source = "Zarifzadeh et al. 2024, arXiv 2312.03262"
    formula = (
        "share of z with r(x) / r(z) > gamma, r = q_target / [((1 + a) q_ref + 1 - a) / 2], "
        "q = exp(mean_t log p)"
    )
    needs = frozenset({"reference", "population"})

    def __post_init__(self) -> None:
        check_margin(self.gamma, self.a)

    def score(self, evidence: TextEvidence) -> Scores:
        records = self._ratios(evidence)
        population = self._ratios(answered(evidence.population))
        return dominated_share(records, population, self.gamma)

    def _ratios(self, evidence: TextEvidence) -> Scores:
        target = np.exp(evidence.target.tokens.mean())
        reference = np.exp(answered(evidence.reference).tokens.mean())
        ratios: Scores = target / (((1 + self.a) * reference + 1 - self.a) / 2)
        return ratios


def check_margin(gamma: float, a: float) -> None:
    """Refuse parameters of RMIA.

    Raises
    ------
    ValueError
        For a gamma that is not above 0, and an a outside [0, 1].
    """
    if not gamma > 0:
        raise ValueError(f"gamma should be above 0, but got {gamma}")
    if not 0 <= a <= 1:
        raise ValueError(f"a should be in [0, 1], but got {a}")


def dominated_share(records: Scores, population: Scores, gamma: float) -> Scores:
    """Which share of the population's ratios is more than gamma times smaller, [records]; NaN where
    a record has no ratio, or nothing of the population has one."""
    bounds = np.sort(gamma * population[~np.isnan(population)])
    if len(bounds) == 0:
        return np.full(len(records), np.nan)
    shares = np.searchsorted(bounds, records, side="left") / len(bounds)
    return np.where(np.isnan(records), np.nan, shares)


@register
@dataclass(frozen=True)
class Quantile(ExcessOverQuantile):
    """How far the record is above what a non-member like it would reach (Bertran et al., 2023).

    On the population, the 1 - fpr quantile of the target's mean log-probability is fitted as a
    linear function of the reference's mean log-probability, the compressed bytes per character and
    the logarithm of the length (pinball loss). The score is the record's excess over it. No score
    where a model has no scored token, or where the population has fewer than 20 usable texts.

    Parameters
    ----------
    fpr : false-positive rate at which the quantile is taken, in (0, 1).
    """

    source = "Bertran et al. 2023, arXiv 2307.03694"
    formula = "mean_t log p(x_t | x_<t) - Q(x), Q the 1 - fpr quantile for non-members like x"
    needs = frozenset({"reference", "population"})

    def covariates(self, evidence: TextEvidence) -> tuple[npt.NDArray[np.float64], Scores]:
        compressed = [len(zlib.compress(text.encode())) / len(text) for text in evidence.texts]
        lengths = [np.log(len(text)) for text in evidence.texts]
        reference = answered(evidence.reference).tokens.mean()
        return np.column_stack([reference, compressed, lengths]), evidence.target.tokens.mean()
