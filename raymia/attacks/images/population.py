"""The attack that compares the record's loss with what images like it reach that are no members."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import OnLoss, log_error, png_bytes, remembered
from raymia.attacks.quantile import ExcessOverQuantile
from raymia.evidence.image import Floats, ImageEvidence, Images


@register
@dataclass(frozen=True)
class Quantile(ExcessOverQuantile, OnLoss):
    """How far the record is above what a non-member like it would reach (Bertran et al., 2023; of
    diffusion models Tang et al., ICML 2024).

    On the population, the 1 - fpr quantile of minus the logarithm of the mean loss is fitted as a
    linear function of the image's mean, standard deviation, high-frequency energy and compressed
    size (pinball loss), and with a reference of the same under the reference. The score is the
    record's excess over it. The papers fit networks on the image itself; four covariates need no
    more than a small population. No score where a model has no answer, or where the population has
    fewer than 20 usable images.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass; denoisers only.
    timestep : one of those that the audit asks about; default: all. Denoisers only.
    fpr : false-positive rate at which the quantile is taken, in (0, 1).
    """

    source = "Tang et al. 2024, arXiv 2312.05140; Bertran et al. 2023, arXiv 2307.03694"
    formula = "-log L(x) - Q(x), Q the 1 - fpr quantile for non-members like x"
    needs = frozenset({"population", "reference_if_given"})

    def __post_init__(self) -> None:
        OnLoss.__post_init__(self)
        ExcessOverQuantile.__post_init__(self)

    def covariates(self, evidence: ImageEvidence) -> tuple[Floats, Scores]:
        covariates = [image_covariates(evidence.images)]
        if evidence.reference is not None:
            covariates.append(-log_error(self.loss(evidence.reference))[:, None])
        return np.hstack(covariates), -log_error(self.loss(answered(evidence.target)))


def image_covariates(images: Images) -> Floats:
    """What of an image alone makes it easy or hard to model.

    Parameters
    ----------
    images : uint8 [images, channels, height, width].

    Returns
    -------
    float64 [images, 4]: mean and standard deviation of the pixel values in [0, 1]; the mean squared
    difference of pixels that are next to each other, 0 for a single pixel; and the bytes per pixel
    of the image's channels as gray PNG files.
    """
    return np.array([_covariates(image) for image in images], np.float64).reshape(-1, 4)


@remembered
def _covariates(image: Images) -> tuple[float, float, float, float]:
    return *_energies(image / 255), png_bytes(image) / image[0].size


def _energies(image: Floats) -> tuple[float, float, float]:
    steps = np.concatenate([np.diff(image, axis=axis).ravel() for axis in (1, 2)])
    energy = float((steps**2).mean()) if len(steps) else 0.0
    return float(image.mean()), float(image.std()), energy
