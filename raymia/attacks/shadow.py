"""Attacks that compare the target with shadows: models trained as it was, on known records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import Scores, register
from raymia.attacks.likelihood_ratio import AmongShadows, Offline, Online
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
