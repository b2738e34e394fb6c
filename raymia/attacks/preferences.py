"""Attacks on answers that were preferred, or not: what training on preferences moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence, TokenEvidence


@register
@dataclass(frozen=True)
class Margin(Attack):
    """How much likelier the chosen answer is than the rejected one, both as a whole.

    With a reference it is what DPO trains: the margin of its implicit rewards, without their factor
    beta; PREMIA's score is one over the other in place of the difference of logarithms. No score
    where either answer has no scored token, or a model's limit cut one, unless target and reference
    read the same tokens of the scored answer.
    """

    name = "margin"
    title = "Margin of preference"
    source = "Feng et al. 2024 (PREMIA), arXiv 2407.06443; Rafailov et al. 2023, arXiv 2305.18290"
    formula = "m_target - m_ref, where m = log p(chosen | prompt) - log p(rejected | prompt)"
    asks = ("tokens", "other_answer")
    needs = frozenset({"reference_if_given", "judged_answers", "token_ids"})

    def score(self, evidence: TextEvidence) -> Scores:
        target, reference = evidence.target, evidence.reference
        margin = _whole(target.tokens) - answered(target.other_answer)
        if reference is not None:
            margin = _reward(evidence) + answered(reference.other_answer)
            margin = margin - answered(target.other_answer)
        return answered(evidence.signs) * margin


@register
@dataclass(frozen=True)
class Reward(Attack):
    """DPO's implicit reward of the scored answer, without its factor beta; turned where the answer
    was rejected or is labelled as unwanted, which training makes less likely.

    No score where either model has no scored token, or the two did not read the same tokens, as
    where the limit of one cut the answer.
    """

    name = "reward"
    title = "Implicit reward"
    source = "Rafailov et al. 2023, arXiv 2305.18290; Ethayarajh et al. 2024, arXiv 2402.01306"
    formula = "s * (log p_target(answer | prompt) - log p_ref(answer | prompt)), s = 1 or -1"
    needs = frozenset({"reference", "judged_answers", "token_ids"})

    def score(self, evidence: TextEvidence) -> Scores:
        return answered(evidence.signs) * _reward(evidence)


@register
@dataclass(frozen=True)
class RewardOfOther(Attack):
    """The same of the other answer of a preference, the second half of the margin.

    No score where a model's limit cut it.
    """

    name = "reward_of_other"
    title = "Implicit reward of the other answer"
    source = "Rafailov et al. 2023, arXiv 2305.18290"
    formula = "-s * (log p_target(other | prompt) - log p_ref(other | prompt)), s = 1 or -1"
    asks = ("other_answer",)
    needs = frozenset({"reference", "judged_answers", "token_ids"})

    def score(self, evidence: TextEvidence) -> Scores:
        reference = answered(answered(evidence.reference).other_answer)
        return -answered(evidence.signs) * (answered(evidence.target.other_answer) - reference)


def _reward(evidence: TextEvidence) -> Scores:
    """What the target gives the answer less what the reference does, over the same tokens."""
    target, reference = evidence.target.tokens, answered(evidence.reference).tokens
    same = [
        np.array_equal(tokens, others)
        for tokens, others in zip(_of_records(target), _of_records(reference), strict=True)
    ]
    return np.where(same, target.sums() - reference.sums(), np.nan)


def _of_records(tokens: TokenEvidence) -> list[npt.NDArray[np.int32]]:
    return np.split(tokens.token_ids, tokens.offsets[1:-1])


def _whole(tokens: TokenEvidence) -> Scores:
    """Sums over whole answers, [records]; NaN where the model's limit cut one."""
    is_cut = False if tokens.is_cut is None else tokens.is_cut
    return np.where(is_cut, np.nan, tokens.sums())
