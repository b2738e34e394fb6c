"""Attacks that compare a text-conditioned model's error with and without the record's caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import Filtered, errors, score_of_error
from raymia.evidence.image import ImageEvidence, ImageModelEvidence


@dataclass(frozen=True)
class _OnCaptions(Filtered):
    asks: ClassVar[tuple[str, ...]] = ("captions",)

    def gap(self, model: ImageModelEvidence) -> Scores:
        """D: the mean error with reduced captions, less that with the full one, [records]."""
        values = errors(answered(model.captions), "l2", self.low_pass)
        gaps: Scores = (values[:, 1:] - values[:, :1]).mean(axis=(1, 2, 3))
        return gaps

    def empty(self, model: ImageModelEvidence) -> Scores:
        """The mean error with the empty caption, [records]."""
        means: Scores = errors(answered(model.captions), "l2", self.low_pass)[:, -1].mean(
            axis=(1, 2)
        )
        return means

    def paired(self, model: ImageModelEvidence) -> Scores:
        """The mean error with captions of other images, less that with its own, [records]."""
        others = errors(answered(model.other_captions), "l2", self.low_pass).mean(axis=(1, 2, 3))
        gaps: Scores = others - self.full(model)
        return gaps

    def full(self, model: ImageModelEvidence) -> Scores:
        """The mean error with the full caption, [records]."""
        means: Scores = errors(answered(model.captions), "l2", self.low_pass)[:, 0].mean(
            axis=(1, 2)
        )
        return means


@register
@dataclass(frozen=True)
class Clid(_OnCaptions):
    """How much worse the model denoises the record without its caption (Zhai et al., NeurIPS 2024).

    Averaged over timesteps, draws and reduced captions, the empty one among them; each difference
    is between errors for the same noise. With a reference, less the same under the reference. No
    score where a model has no answer.

    Parameters
    ----------
    low_pass : take the errors after FreMIA's low-pass.
    """

    name = "clid"
    title = "CLiD"
    source = "Zhai et al. 2024, arXiv 2405.14800"
    formula = "D = mean_(t, eps, c*) [||eps - eps_theta(x_t, t, c*)||^2 - (the same for c)]"
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        gap = self.gap(answered(evidence.target))
        return gap if evidence.reference is None else gap - self.gap(evidence.reference)


@register
@dataclass(frozen=True)
class Uncaptioned(_OnCaptions):
    """The error without the caption: whether the image alone is known, whatever was said of it.

    High beside a low `pairing`: the image was in the training with another caption, or captions
    were dropped. With a reference, log L_ref - log L. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the errors after FreMIA's low-pass.
    """

    name = "uncaptioned"
    title = "Loss without the caption"
    source = "raymia"
    formula = "-mean_(t, eps) ||eps - eps_theta(x_t, t, empty)||^2"
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self.empty, evidence)


@register
@dataclass(frozen=True)
class Pairing(_OnCaptions):
    """How much worse the model denoises the record with another image's caption than with its own:
    whether the pair is known.

    The captions are those of the population, so that they are of the domain and were not trained
    on; averaged over them, timesteps and draws, at the same noise. With a reference, less the same
    under the reference. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the errors after FreMIA's low-pass.
    """

    name = "pairing"
    title = "Pair of image and caption"
    source = "raymia, after Zhai et al. 2024, arXiv 2405.14800"
    formula = "mean_(t, eps, c') [||eps - eps_theta(x_t, t, c')||^2 - (the same for c)]"
    asks = ("captions", "other_captions")
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        gap = self.paired(answered(evidence.target))
        return gap if evidence.reference is None else gap - self.paired(evidence.reference)


@register
@dataclass(frozen=True)
class ClidMixed(_OnCaptions):
    """CLiD mixed with the loss, the paper's CLiD_th (Zhai et al., NeurIPS 2024).

    Each of the two is scaled by its median and its interquartile range on the population, so that
    no record is judged by a scale that it was part of. No score where the target has no answer, or
    where the population has none or is of one value.

    Parameters
    ----------
    low_pass : take the errors after FreMIA's low-pass.
    alpha : share of CLiD, in [0, 1].
    """

    alpha: float = 0.9

    name = "clid_mixed"
    title = "CLiD, mixed with the loss"
    source = "Zhai et al. 2024, arXiv 2405.14800"
    formula = "alpha S(D) + (1 - alpha) S(-L), S robust scaling, L the error with the caption"
    needs = frozenset({"population"})

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha should be in [0, 1], but got {self.alpha}")

    def score(self, evidence: ImageEvidence) -> Scores:
        target = answered(evidence.target)
        population = answered(answered(evidence.population).target)
        gap = _scaled(self.gap(target), self.gap(population))
        loss = _scaled(-self.full(target), -self.full(population))
        return self.alpha * gap + (1 - self.alpha) * loss


def _scaled(values: Scores, population: Scores) -> Scores:
    """Values less the population's median, over its interquartile range; NaN without a range."""
    known = population[~np.isnan(population)]
    if len(known) == 0:
        return np.full(len(values), np.nan)
    low, median, high = np.quantile(known, [0.25, 0.5, 0.75])
    scaled: Scores = (values - median) / (high - low if high > low else np.nan)
    return scaled
