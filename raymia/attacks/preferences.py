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
    where either answer has no scored token, or a model read a part of one alone.
    """

    name = "margin"
    title = "Margin of preference"
    source = "Feng et al. 2024 (PREMIA), arXiv 2407.06443; Rafailov et al. 2023, arXiv 2305.18290"
    formula = "m_target - m_ref, where m = log p(chosen | prompt) - log p(rejected | prompt)"
    asks = ("tokens", "other_answer")
    needs = frozenset({"reference_if_given", "judged_answers"})

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

    No score where either model has no scored token, or one of them read a part of the answer alone
    and the other did not read the same.
    """

    name = "reward"
    title = "Implicit reward"
    source = "Rafailov et al. 2023, arXiv 2305.18290; Ethayarajh et al. 2024, arXiv 2402.01306"
    formula = "s * (log p_target(answer | prompt) - log p_ref(answer | prompt)), s = 1 or -1"
    needs = frozenset({"reference", "judged_answers"})

    def score(self, evidence: TextEvidence) -> Scores:
        return answered(evidence.signs) * _reward(evidence)


@register
@dataclass(frozen=True)
class RewardOfOther(Attack):
    """The same of the other answer of a preference, the second half of the margin.

    No score where a model read a part of it alone.
    """

    name = "reward_of_other"
    title = "Implicit reward of the other answer"
    source = "Rafailov et al. 2023, arXiv 2305.18290"
    formula = "-s * (log p_target(other | prompt) - log p_ref(other | prompt)), s = 1 or -1"
    asks = ("other_answer",)
    needs = frozenset({"reference", "judged_answers"})

    def score(self, evidence: TextEvidence) -> Scores:
        reference = answered(answered(evidence.reference).other_answer)
        return -answered(evidence.signs) * (answered(evidence.target.other_answer) - reference)


def _reward(evidence: TextEvidence) -> Scores:
    """What the target gives the answer less what the reference does, over the same words."""
    target, reference = evidence.target.tokens, answered(evidence.reference).tokens
    rewards = target.sums() - reference.sums()
    differ = np.array([
        not np.array_equal(tokens, others)
        for tokens, others in zip(_of_records(target), _of_records(reference), strict=True)
    ])  # fmt: skip
    return np.where((_is_cut(target) | _is_cut(reference)) & differ, np.nan, rewards)


def _of_records(tokens: TokenEvidence) -> list[npt.NDArray[np.int32]]:
    return np.split(tokens.token_ids, tokens.offsets[1:-1])


def _whole(tokens: TokenEvidence) -> Scores:
    """Sums over whole answers, [records]; NaN where the model read a part alone."""
    return np.where(_is_cut(tokens), np.nan, tokens.sums())


def _is_cut(tokens: TokenEvidence) -> npt.NDArray[np.bool_]:
    return np.zeros(len(tokens.counts), np.bool_) if tokens.is_cut is None else tokens.is_cut
