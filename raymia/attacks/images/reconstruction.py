"""Attacks on how well an autoencoder reproduces the record."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import ImageAttack, mean_error, score_of_error
from raymia.evidence.image import ImageEvidence, ImageModelEvidence


@register
@dataclass(frozen=True)
class Reconstruction(ImageAttack):
    """Mean reconstruction error over latent draws (Hilprecht et al., PETS 2019).

    The error is the one that the autoencoder was trained on, without its divergence. Of groups of
    records, whose scores are averaged, it is the set attack of the same paper. With a reference,
    the difference of the logarithms. No score where a model has no answer.
    """

    name = "reconstruction"
    title = "Reconstruction"
    source = "Hilprecht et al. 2019, arXiv 1906.03006"
    formula = "-mean_z ||x - decode(z)||^2, z ~ q(z | x)"
    needs = frozenset({"autoencoder", "reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self._error, evidence)

    def _error(self, model: ImageModelEvidence) -> Scores:
        return mean_error(model.terms, "reconstruction")


@register
@dataclass(frozen=True)
class CoMembership(ImageAttack):
    """Error of the best reproduction that the decoder can be brought to (Liu et al., ICDM 2019).

    The latents are searched by gradient descent, record by record, as GAN-Leaks does with full
    access to a generator and as PFAMI's authors computed the rival of this name. The paper fits one
    network that gives the latents of all records of a group; here a group's score is the mean over
    records of it. With a reference, the difference of the logarithms. No score where a model has no
    answer.
    """

    name = "co_membership"
    title = "Co-membership"
    source = "Liu et al. 2019, ICDM; Chen et al. 2020, arXiv 1909.03935, full access"
    formula = "-min_z ||x - decode(z)||^2"
    asks = ("descent",)
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self._error, evidence)

    def _error(self, model: ImageModelEvidence) -> Scores:
        return mean_error(answered(model.descent), "squared_error")
