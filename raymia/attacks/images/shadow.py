"""Attacks that compare the target with shadows: models trained as it was, on known records."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, register
from raymia.attacks.images.base import OnLoss, log_error
from raymia.attacks.likelihood_ratio import AmongShadows, Offline, Online
from raymia.evidence.image import ImageModelEvidence


@dataclass(frozen=True)
class _OnLogLoss(AmongShadows, OnLoss):
    """Minus the logarithm of the mean loss."""

    def statistic(self, model: ImageModelEvidence) -> Scores:
        return -log_error(self.loss(model))


@register
@dataclass(frozen=True)
class Lira(Online, _OnLogLoss):
    """LiRA, online: how much likelier the record's loss is under shadows trained on it (Carlini et
    al., S&P 2022; of diffusion models USENIX 2023).

    Minus the logarithm of the mean loss is taken as normal, once over the shadows that were trained
    on the record and once over the others. No score without a shadow of each kind, or where the
    target has no answer.

    Parameters
    ----------
    low_pass : take the error after FreMIA's low-pass; denoisers only.
    timestep : one of those that the audit asks about; default: all. Denoisers only.
    fixed_variance : one variance for all records, as published for few shadows (64 or fewer), and 1
        where no record has two shadows of a kind; false estimates each record's own, and needs at
        least two shadows of each kind.
    """

    source = "Carlini et al. 2022, arXiv 2112.03570; 2023, arXiv 2301.13188"
    formula = "log N(phi(x); mu_in, s_in) - log N(phi(x); mu_out, s_out), phi = -log L"


@register
@dataclass(frozen=True)
class LiraOffline(Offline, _OnLogLoss):
    """LiRA, offline: how far the record is above what shadows without it say (Carlini et al.).

    In standard deviations of the shadows that were not trained on the record. No score without such
    a shadow, or where the target has no answer.

    Parameters
    ----------
    low_pass, timestep, fixed_variance : as in `lira`.
    """

    source = "Carlini et al. 2022, arXiv 2112.03570; 2023, arXiv 2301.13188"
    formula = "[phi(x) - mu_out] / s_out, phi = -log L"
