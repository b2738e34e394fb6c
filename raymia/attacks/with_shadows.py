"""Attacks on texts that read the shadows otherwise than LiRA: a ratio, a quantile, a classifier."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.attacks.likelihood_ratio import spread
from raymia.attacks.min_k import log_prob, means_of_lowest
from raymia.attacks.population import check_margin, dominated_share
from raymia.attacks.quantile import ExcessOverQuantile
from raymia.evidence.text import ModelEvidence, TextEvidence, segment_mean
from raymia.metrics.learning import fit, fold_of


def by_shadow(evidence: TextEvidence) -> tuple[list[ModelEvidence], npt.NDArray[np.bool_]]:
    """The answers of each shadow, and which was trained on which record, [shadows, records]."""
    if not evidence.shadows:
        raise ValueError("this attack needs the evidence of shadows")
    is_in = np.stack([shadow.is_in for shadow in evidence.shadows])
    return [shadow.model for shadow in evidence.shadows], is_in


@register
@dataclass(frozen=True)
class RmiaShadows(Attack):
    """Share of a population that the record dominates, with shadows (Zarifzadeh et al., ICML 2024,
    online).

    With q = exp(mean log p), the likelihood ratio of a text is q(x) over what models give on
    average, half of them trained on it: the mean over shadows that were, and over shadows that were
    not. Of a text that no shadow was trained on, as those of the population, the first is taken to
    be ``a q_out + 1 - a``. The score is the share of the population whose ratio is more than gamma
    times smaller. No score without a shadow that was not trained on the record.

    Parameters
    ----------
    gamma : at least 1 asks for a clear margin.
    a : 0 to 1; less than 1 suits images, whose q is near 1.
    """

    gamma: float = 1.0
    a: float = 1.0

    name = "rmia_shadows"
    title = "RMIA, with shadows"
    source = "Zarifzadeh et al. 2024, arXiv 2312.03262"
    formula = "share of z with r(x) / r(z) > gamma, r = q_target / [(q_in + q_out) / 2]"
    needs = frozenset({"shadows", "population"})

    def __post_init__(self) -> None:
        check_margin(self.gamma, self.a)

    def score(self, evidence: TextEvidence) -> Scores:
        population = self._ratios(answered(evidence.population))
        return dominated_share(self._ratios(evidence), population, self.gamma)

    def _ratios(self, evidence: TextEvidence) -> Scores:
        models, is_in = by_shadow(evidence)
        q = np.stack([np.exp(model.tokens.mean()) for model in models])
        out = spread(q, ~is_in)[0]
        known = spread(q, is_in)[0]
        known = np.where(np.isnan(known), self.a * out + 1 - self.a, known)
        ratios: Scores = np.exp(evidence.target.tokens.mean()) / ((known + out) / 2)
        return ratios


@register
@dataclass(frozen=True)
class QuantileShadows(ExcessOverQuantile):
    """How far the record is above what a non-member like it would reach, given what shadows without
    it say (after Bertran et al., 2023).

    As `quantile`, but the quantile depends on the mean and the deviation of the text's mean
    log-probability over the shadows that were not trained on it. No score without two of them, or
    where the population has fewer than 20 usable texts.

    Parameters
    ----------
    fpr : false-positive rate at which the quantile is taken, in (0, 1).
    """

    name = "quantile_shadows"
    title = "Quantile regression, with shadows"
    source = "raymia, after Bertran et al. 2023, arXiv 2307.03694"
    formula = (
        "mean_t log p(x_t | x_<t) - Q(x), Q the 1 - fpr quantile for non-members of which shadows "
        "say the same"
    )
    needs = frozenset({"shadows", "population"})

    def covariates(self, evidence: TextEvidence) -> tuple[npt.NDArray[np.float64], Scores]:
        models, is_in = by_shadow(evidence)
        mean, squares, counts = spread(np.stack([m.tokens.mean() for m in models]), ~is_in)
        deviation = np.sqrt(squares / np.where(counts > 1, counts - 1, np.nan))
        compressed = [len(zlib.compress(text.encode())) / len(text) for text in evidence.texts]
        lengths = [np.log(len(text)) for text in evidence.texts]
        covariates = np.column_stack([mean, deviation, compressed, lengths])
        return covariates, evidence.target.tokens.mean()


@register
@dataclass(frozen=True)
class LearnedShadows(Attack):
    """A classifier that was taught by shadows what a model answers on its own records (after Shokri
    et al., S&P 2017).

    It is a logistic regression on what one model says of a record (mean log-probability, mean of
    the lowest fifth, deviation over the tokens), each as it is and less the mean over the other
    shadows that were not trained on the record. It is fitted on every shadow and record, with
    whether the one was trained on the other, and then judges the target. Cross-fitted: records fall
    into folds by their content (by their group where they have one), and no record is judged by a
    classifier that saw it. It looks at no label of the audit. No score without a shadow that was
    not trained on the record, or with fewer than 10 pairs of a kind to learn from.

    Parameters
    ----------
    folds : at least 2.
    """

    folds: int = 5

    name = "learned_shadows"
    title = "Classifier taught by shadows"
    source = "raymia, after Shokri et al. 2017, arXiv 1610.05820"
    formula = "cross-fitted log-odds, linear in features of the model and less those of shadows"
    needs = frozenset({"shadows", "units"})

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds should be at least 2, but got {self.folds}")

    def score(self, evidence: TextEvidence) -> Scores:
        models, is_in = by_shadow(evidence)
        features = np.stack([features_of(model) for model in models])
        taught = np.stack([
            beside(own, np.delete(features, n, axis=0), np.delete(is_in, n, axis=0))
            for n, own in enumerate(features)
        ])  # fmt: skip
        judged = beside(features_of(evidence.target), features, is_in)
        folds = fold_of(answered(evidence.units), self.folds, "fold of a learned attack")
        usable, odds = np.isfinite(taught).all(axis=2), np.full(len(judged), np.nan)
        for fold in range(self.folds):
            learnt = usable & (folds != fold)
            here = np.isfinite(judged).all(axis=1) & (folds == fold)
            model = fit(taught[learnt], is_in[learnt])
            if model is not None and here.any():
                odds[here] = model.decision_function(judged[here])
        return odds


def features_of(model: ModelEvidence) -> npt.NDArray[np.float64]:
    """What a model says of each record, [records, 3]; NaN without a scored token."""
    tokens = model.tokens
    mean = tokens.mean()
    squares = segment_mean(tokens.log_prob.astype(np.float64) ** 2, tokens.offsets)
    lowest = means_of_lowest(tokens.lowest_first(log_prob), tokens, 0.2)
    return np.column_stack([mean, lowest, np.sqrt(np.maximum(squares - mean**2, 0))])


def beside(
    own: npt.NDArray[np.float64], others: npt.NDArray[np.float64], is_in: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """A model's features and how far they are from those of shadows without the record, [records,
    6]; NaN without such a shadow.

    Parameters
    ----------
    others : of the shadows, [shadows, records, features].
    is_in : [shadows, records].
    """
    used = ~is_in[:, :, None] & np.isfinite(others)
    counts = used.sum(axis=0)
    mean = np.where(used, others, 0.0).sum(axis=0) / np.where(counts > 0, counts, np.nan)
    return np.column_stack([own, own - mean])
