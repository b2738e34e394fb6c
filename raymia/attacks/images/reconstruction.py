"""The attack on how well an autoencoder reconstructs the record."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, register
from raymia.attacks.images.base import AUTOENCODER, ImageAttack, mean_error, score_of_error
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
    families = frozenset({AUTOENCODER})
    calibrates = True

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self._error, evidence)

    def _error(self, model: ImageModelEvidence) -> Scores:
        return mean_error(model.terms, "reconstruction")
