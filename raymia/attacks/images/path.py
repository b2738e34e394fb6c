"""The attack on where along the path from image to noise the error is largest."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import Filtered, errors, log_error
from raymia.evidence.image import Floats, ImageEvidence, ImageModelEvidence


@register
@dataclass(frozen=True)
class PeakError(Filtered):
    """The record's denoising error where the curve of its errors over the path has its peak.

    A flow's error is bell-shaped over the path, and Sesmat et al. (ICML 2026) find the gap between
    members and others at its largest where x_s says least of the velocity; for isotropic Gaussians
    that is where the error of the best flow peaks (docs/images.md). Theirs is a network that is
    taught on the whole curve; this takes the peak and needs no labels. Errors are averaged over the
    draws first. With a reference, the peak of the record's own gap: the largest difference of the
    logarithms over the path. The error of predicted noise has its peak at the first timestep; there
    the reference's kind alone says something of the path. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass.
    """

    name = "peak_error"
    title = "Peak of the error curve"
    source = "raymia, after Sesmat et al. 2026, arXiv 2606.07271"
    formula = "-max_t L_t(x), L_t = mean_eps ||r_t||^2; @REF max_t [log L_t,ref(x) - log L_t(x)]"
    needs = frozenset({"denoiser", "reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        curve = self._curve(answered(evidence.target))
        if evidence.reference is None:
            scores: Scores = -curve.max(axis=1)
        else:
            gap = log_error(self._curve(evidence.reference)) - log_error(curve)
            scores = gap.max(axis=1)
        return scores

    def _curve(self, model: ImageModelEvidence) -> Floats:
        """[records, timesteps]."""
        curve: Floats = errors(model.terms, "loss", self.low_pass).mean(axis=-1)
        return curve
