"""Attacks that compare the target with shadows: models trained as it was, on known records."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Scores, register
from raymia.attacks.images.base import OnLoss, log_error
from raymia.attacks.likelihood_ratio import AmongShadows, Offline, Online
from raymia.attacks.student_ratio import StudentOffline, StudentOnline
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


@register
@dataclass(frozen=True)
class LiraT(StudentOnline, _OnLogLoss):
    """LiRA, online, for few shadows: each record's variance is drawn to that of all records.

    As `lira`, with Student's t distribution in place of the normal one; on texts it is the same.

    Parameters
    ----------
    low_pass, timestep : as in `lira`.
    prior_degrees, prior_variance : the prior's weight, in shadows, and its variance; default: the
        likeliest for all records.
    """

    source = "raymia, after Carlini et al. 2022; such priors: Brännvall 2026, arXiv 2603.11799"
    formula = "log t(phi(x); mu_in, v_in) - log t(phi(x); mu_out, v_out), phi = -log L"

    def __post_init__(self) -> None:
        OnLoss.__post_init__(self)
        StudentOnline.__post_init__(self)


@register
@dataclass(frozen=True)
class LiraTOffline(StudentOffline, _OnLogLoss):
    """LiRA, offline, for few shadows: how far the record is above what shadows without it say.

    As `lira_offline`, by Student's t distribution as in `lira_t`.

    Parameters
    ----------
    low_pass, timestep, prior_degrees, prior_variance : as in `lira_t`.
    """

    source = "raymia, after Carlini et al. 2022; such priors: Brännvall 2026, arXiv 2603.11799"
    formula = "log P / (1 - P), P = P(t < phi(x); mu_out, v_out), phi = -log L"

    def __post_init__(self) -> None:
        OnLoss.__post_init__(self)
        StudentOffline.__post_init__(self)
