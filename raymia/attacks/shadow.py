"""Attacks that compare the target with shadows: models trained as it was, on known records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import Scores, register
from raymia.attacks.likelihood_ratio import AmongShadows, Offline, Online
from raymia.attacks.student_ratio import StudentOffline, StudentOnline
from raymia.evidence.text import ModelEvidence

MAX_PROBABILITY = 1 - 1e-7
"""Probabilities nearer to 1 have no finite logit."""


@dataclass(frozen=True)
class _OnLogits(AmongShadows):
    """The logit of the geometric mean of a record's token probabilities."""

    def statistic(self, model: ModelEvidence) -> Scores:
        q = np.minimum(np.exp(model.tokens.mean()), MAX_PROBABILITY)
        logits: Scores = np.log(q) - np.log1p(-q)
        return logits


@register
@dataclass(frozen=True)
class Lira(Online, _OnLogits):
    """LiRA, online: how much likelier the record is under shadows trained on it (Carlini et al.,
    S&P 2022).

    The logit of q = exp(mean log p) is taken as normal, once over the shadows that were trained on
    the record and once over the others. No score without a shadow of each kind.

    Parameters
    ----------
    fixed_variance : one variance for all records, as published for few shadows (64 or fewer), and 1
        where no record has two shadows of a kind; false estimates each record's own, and needs at
        least two shadows of each kind.
    """

    source = "Carlini et al. 2022, arXiv 2112.03570"
    formula = "log N(phi(x); mu_in, s_in) - log N(phi(x); mu_out, s_out), phi = log(q / (1 - q))"


@register
@dataclass(frozen=True)
class LiraOffline(Offline, _OnLogits):
    """LiRA, offline: how far the record is above what shadows without it say (Carlini et al.).

    In standard deviations of the shadows that were not trained on the record, which orders records
    as the published one-sided test does. No score without such a shadow.

    Parameters
    ----------
    fixed_variance : as in `lira`.
    """

    source = "Carlini et al. 2022, arXiv 2112.03570"
    formula = "[phi(x) - mu_out] / s_out, phi = log(q / (1 - q)), q = exp(mean_t log p)"


@register
@dataclass(frozen=True)
class LiraT(StudentOnline, _OnLogits):
    """LiRA, online, for few shadows: each record's variance is drawn to that of all records.

    As `lira`, with Student's t distribution in place of the normal one: what a handful of shadows
    say of a record's variance is weighed against a prior that is estimated on all records, and the
    record's mean is taken as uncertain as it is. No score without a shadow of each kind.

    Parameters
    ----------
    prior_degrees, prior_variance : the prior's weight, in shadows, and its variance; default: the
        likeliest for all records.
    """

    source = "raymia, after Carlini et al. 2022; such priors: Brännvall 2026, arXiv 2603.11799"
    formula = "log t(phi(x); mu_in, v_in) - log t(phi(x); mu_out, v_out), phi = log(q / (1 - q))"


@register
@dataclass(frozen=True)
class LiraTOffline(StudentOffline, _OnLogits):
    """LiRA, offline, for few shadows: how far the record is above what shadows without it say.

    As `lira_offline`, by Student's t distribution as in `lira_t`. No score without such a shadow.

    Parameters
    ----------
    prior_degrees, prior_variance : as in `lira_t`.
    """

    source = "raymia, after Carlini et al. 2022; such priors: Brännvall 2026, arXiv 2603.11799"
    formula = "log P / (1 - P), P = P(t < phi(x); mu_out, v_out), phi = log(q / (1 - q))"
