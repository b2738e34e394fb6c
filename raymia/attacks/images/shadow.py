"""Attacks that compare the target with shadows: models trained as it was, on known records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.gaussian import offline_score, online_score
from raymia.attacks.images.base import OnLoss, log_error
from raymia.evidence.image import ImageEvidence


@dataclass(frozen=True)
class _Likelihoods(OnLoss):
    fixed_variance: bool = True

    needs = frozenset({"shadows"})

    def statistics(self, evidence: ImageEvidence) -> tuple[Scores, Scores, npt.NDArray[np.bool_]]:
        """phi of the target [records] and of the shadows [shadows, records], and which shadow was
        trained on which record."""
        if not evidence.shadows:
            raise ValueError("this attack needs the evidence of shadows")
        return (
            -log_error(self.loss(answered(evidence.target))),
            np.stack([-log_error(self.loss(shadow.model)) for shadow in evidence.shadows]),
            np.stack([shadow.is_in for shadow in evidence.shadows]),
        )


@register
@dataclass(frozen=True)
class Lira(_Likelihoods):
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

    name = "lira"
    title = "LiRA, online"
    source = "Carlini et al. 2022, arXiv 2112.03570; 2023, arXiv 2301.13188"
    formula = "log N(phi(x); mu_in, s_in) - log N(phi(x); mu_out, s_out), phi = -log L"

    def score(self, evidence: ImageEvidence) -> Scores:
        return online_score(*self.statistics(evidence), self.fixed_variance)


@register
@dataclass(frozen=True)
class LiraOffline(_Likelihoods):
    """LiRA, offline: how far the record is above what shadows without it say (Carlini et al.).

    In standard deviations of the shadows that were not trained on the record. No score without such
    a shadow, or where the target has no answer.

    Parameters
    ----------
    low_pass, timestep, fixed_variance : as in `lira`.
    """

    name = "lira_offline"
    title = "LiRA, offline"
    source = "Carlini et al. 2022, arXiv 2112.03570; 2023, arXiv 2301.13188"
    formula = "[phi(x) - mu_out] / s_out, phi = -log L"

    def score(self, evidence: ImageEvidence) -> Scores:
        return offline_score(*self.statistics(evidence), self.fixed_variance)
