"""Attacks that compare the target with shadows: models trained as it was, on known records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, register
from raymia.attacks.gaussian import offline_score, online_score
from raymia.evidence.text import ModelEvidence, ShadowEvidence, TextEvidence

MAX_PROBABILITY = 1 - 1e-7
"""Probabilities nearer to 1 have no finite logit."""


@dataclass(frozen=True)
class _Likelihoods(Attack):
    fixed_variance: bool = True

    needs = frozenset({"shadows"})


@register
@dataclass(frozen=True)
class Lira(_Likelihoods):
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

    name = "lira"
    title = "LiRA, online"
    source = "Carlini et al. 2022, arXiv 2112.03570"
    formula = "log N(phi(x); mu_in, s_in) - log N(phi(x); mu_out, s_out), phi = log(q / (1 - q))"

    def score(self, evidence: TextEvidence) -> Scores:
        return online_score(*_logits(evidence), self.fixed_variance)


@register
@dataclass(frozen=True)
class LiraOffline(_Likelihoods):
    """LiRA, offline: how far the record is above what shadows without it say (Carlini et al.).

    In standard deviations of the shadows that were not trained on the record, which orders records
    as the published one-sided test does. No score without such a shadow.

    Parameters
    ----------
    fixed_variance : as in `lira`.
    """

    name = "lira_offline"
    title = "LiRA, offline"
    source = "Carlini et al. 2022, arXiv 2112.03570"
    formula = "[phi(x) - mu_out] / s_out, phi = log(q / (1 - q)), q = exp(mean_t log p)"

    def score(self, evidence: TextEvidence) -> Scores:
        return offline_score(*_logits(evidence), self.fixed_variance)


def _logits(evidence: TextEvidence) -> tuple[Scores, Scores, npt.NDArray[np.bool_]]:
    """Logits of the target [records] and of the shadows [shadows, records], and which shadow was
    trained on which record."""
    if not evidence.shadows:
        raise ValueError("this attack needs the evidence of shadows")
    shadows: list[ShadowEvidence] = list(evidence.shadows)
    return (
        _logit(evidence.target),
        np.stack([_logit(shadow.model) for shadow in shadows]),
        np.stack([shadow.is_in for shadow in shadows]),
    )


def _logit(model: ModelEvidence) -> Scores:
    q = np.minimum(np.exp(model.tokens.mean()), MAX_PROBABILITY)
    logits: Scores = np.log(q) - np.log1p(-q)
    return logits
