"""Attacks on the model's loss alone, and on what of it the image's complexity explains."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, register
from raymia.attacks.images.base import OnLoss, score_of_error, score_per_byte
from raymia.evidence.image import ImageEvidence


@register
@dataclass(frozen=True)
class Loss(OnLoss):
    """Mean loss of the record (Yeom et al., CSF 2018; Matsumoto et al., SPW 2023).

    The denoising error ||eps - eps_theta(x_t, t)||^2 over its elements, averaged over timesteps and
    noise draws; of an autoencoder the negative ELBO that it was trained on, averaged over latent
    draws; of a model that predicts pixels their negative log-likelihood. With a reference,
    log L_ref - log L. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass; denoisers only.
    timestep : one of those that the audit asks about; default: all. Denoisers only.
    """

    name = "loss"
    title = "Loss"
    source = "Matsumoto et al. 2023, arXiv 2302.03262"
    formula = "-mean_(t, eps) ||eps - eps_theta(x_t, t)||^2; for autoencoders the ELBO"
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_of_error(self.loss, evidence)


@register
@dataclass(frozen=True)
class LossPerByte(OnLoss):
    """Mean loss over the size of the image's channels as gray PNG files, in bytes.

    What `zlib` is on texts: an image that compresses badly has a larger loss whoever has seen it.
    Rao and Moyer (2026) calibrate flows so; they divide the residual of the mean velocity over the
    draws, which is `sima_mc` with `per_byte`, where this divides the mean that `loss` has and costs
    no further pass. With a reference, the reference's loss less the target's is divided, since the
    size would cancel in a ratio. No score where a model has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass; denoisers only.
    timestep : one of those that the audit asks about; default: all. Denoisers only.
    """

    name = "loss_per_byte"
    title = "Loss over complexity"
    source = "raymia, after Rao and Moyer 2026, arXiv 2603.13421"
    formula = "-L(x) / bytes(PNG(x)); @REF [L_ref(x) - L(x)] / bytes(PNG(x))"
    needs = frozenset({"reference_if_given"})

    def score(self, evidence: ImageEvidence) -> Scores:
        return score_per_byte(self.loss, evidence)
