"""Attacks on answers that were preferred, or not: what training on preferences moves."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.evidence.text import ModelEvidence, TextEvidence


@register
@dataclass(frozen=True)
class Margin(Attack):
    """How much likelier the chosen answer is than the rejected one, both as a whole.

    With a reference it is what DPO trains: the margin of its implicit rewards, without their factor
    beta; PREMIA's score is one over the other in place of the difference of logarithms. No score
    where either answer has no scored token.
    """

    name = "margin"
    title = "Margin of preference"
    source = "Feng et al. 2024 (PREMIA), arXiv 2407.06443; Rafailov et al. 2023, arXiv 2305.18290"
    formula = "m_target - m_ref, where m = log p(chosen | prompt) - log p(rejected | prompt)"
    asks = ("tokens", "other_answer")
    needs = frozenset({"reference_if_given", "judged_answers"})

    def score(self, evidence: TextEvidence) -> Scores:
        margin = _own_less_other(evidence.target)
        if evidence.reference is not None:
            margin = margin - _own_less_other(evidence.reference)
        return answered(evidence.signs) * margin


@register
@dataclass(frozen=True)
class Reward(Attack):
    """DPO's implicit reward of the scored answer, without its factor beta; turned where the answer
    was rejected or is labelled as unwanted, which training makes less likely.

    No score where either model has no scored token.
    """

    name = "reward"
    title = "Implicit reward"
    source = "Rafailov et al. 2023, arXiv 2305.18290; Ethayarajh et al. 2024, arXiv 2402.01306"
    formula = "s * (log p_target(answer | prompt) - log p_ref(answer | prompt)), s = 1 or -1"
    needs = frozenset({"reference", "judged_answers"})

    def score(self, evidence: TextEvidence) -> Scores:
        reference = answered(evidence.reference).tokens.sums()
        return answered(evidence.signs) * (evidence.target.tokens.sums() - reference)


@register
@dataclass(frozen=True)
class RewardOfOther(Attack):
    """The same of the other answer of a preference, the second half of the margin."""

    name = "reward_of_other"
    title = "Implicit reward of the other answer"
    source = "Rafailov et al. 2023, arXiv 2305.18290"
    formula = "-s * (log p_target(other | prompt) - log p_ref(other | prompt)), s = 1 or -1"
    asks = ("other_answer",)
    needs = frozenset({"reference", "judged_answers"})

    def score(self, evidence: TextEvidence) -> Scores:
        reference = answered(answered(evidence.reference).other_answer)
        return -answered(evidence.signs) * (answered(evidence.target.other_answer) - reference)


def _own_less_other(model: ModelEvidence) -> Scores:
    return model.tokens.sums() - answered(model.other_answer)
