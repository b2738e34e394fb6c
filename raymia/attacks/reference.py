"""Attacks that compare the target with a reference on the record alone."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Attack, Scores, needs_reference, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Difference(Attack):
    """Mean log-probability under the target minus that under the reference.

    With the base as reference it is what SPV-MIA's tables call LiRA-Base, with a model tuned on
    similar data LiRA-Candidate (Carlini et al. 2021; Mireshghallah et al. 2022). Each mean is over
    the tokens of the model's own tokenizer. No score where either model has no scored token.
    """

    name = "difference"
    title = "Reference difference"
    source = "Carlini et al. 2021, arXiv 2012.07805; Mireshghallah et al. 2022, arXiv 2203.03929"
    formula = "mean_t log p_target(x_t | x_<t) - mean_t log p_ref(x_t | x_<t)"
    uses_reference = True

    def score(self, evidence: TextEvidence) -> Scores:
        return evidence.target.tokens.mean() - needs_reference(evidence).tokens.mean()
