"""Attacks that compare the target with a reference on the record alone, each by its mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import MIN_LOSS, Attack, InSpace, Scores, answered, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Difference(InSpace):
    """Mean log-probability under the target minus that under the reference.

    With the base as reference it is what SPV-MIA's tables call LiRA-Base, with a model tuned on
    similar data LiRA-Candidate (Carlini et al. 2021; Mireshghallah et al. 2022). Each mean is over
    the tokens of the model's own tokenizer. No score where either model has no scored token.

    Parameters
    ----------
    space : "log" as published, or "probability" for q = exp(mean log p) in place of the mean, which
        is SPV-MIA without its neighbors.
    """

    name = "difference"
    title = "Reference difference"
    source = "Carlini et al. 2021, arXiv 2012.07805; Mireshghallah et al. 2022, arXiv 2203.03929"
    formula = "mean_t log p_target(x_t | x_<t) - mean_t log p_ref(x_t | x_<t)"
    needs = frozenset({"reference"})

    def score(self, evidence: TextEvidence) -> Scores:
        reference = answered(evidence.reference).tokens.mean()
        return self.likelihood(evidence.target.tokens.mean()) - self.likelihood(reference)


@register
@dataclass(frozen=True)
class Ratio(Attack):
    """Mean loss under the reference over that under the target (Carlini et al., USENIX 2021).

    Each mean is over the tokens of the model's own tokenizer, and at least 1e-6: a target that is
    sure of every token gives no infinity, and a record that both are sure of gives 1 and not 0.
    No score where either model has no scored token.
    """

    name = "ratio"
    title = "Reference ratio"
    source = "Carlini et al. 2021, arXiv 2012.07805"
    formula = "mean_t log p_ref(x_t | x_<t) / mean_t log p_target(x_t | x_<t)"
    needs = frozenset({"reference"})

    def score(self, evidence: TextEvidence) -> Scores:
        reference = np.maximum(-answered(evidence.reference).tokens.mean(), MIN_LOSS)
        return reference / np.maximum(-evidence.target.tokens.mean(), MIN_LOSS)
