"""Attacks on how a prefix of other texts changes the log-probability of the record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import MIN_LOSS, Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Recall(Attack):
    """Log-probability after non-members over that without them (Xie et al., EMNLP 2024).

    The prefix is made of texts of `records.population`, none of which is scored; taken from the
    scored non-members, as in released code, it would leak their labels. The record's mean loss is
    at least 1e-6. After a prefix the first token counts too; an end that the tokenizer adds counts
    on both sides. No score without a scored token, or
    for a record longer than what the prefix leaves of the context.
    """

    name = "recall"
    title = "ReCaLL"
    source = "Xie et al. 2024, arXiv 2406.15968"
    formula = "mean_t log p(x_t | non-members, x_<t) / mean_t log p(x_t | x_<t)"
    asks = ("tokens", "prefixed")

    def score(self, evidence: TextEvidence) -> Scores:
        target = evidence.target
        return answered(target.prefixed) / np.minimum(target.tokens.mean(), -MIN_LOSS)


@register
@dataclass(frozen=True)
class ConRecall(Attack):
    """ReCaLL less what a prefix of members does (Wang et al., COLING 2025).

    The second prefix is made of texts of `records.known_members`, none of which is scored.

    Parameters
    ----------
    gamma : weight of the prefix of members, at least 0.
    """

    gamma: float = 0.5

    name = "con_recall"
    title = "CON-ReCall"
    source = "Wang et al. 2024, arXiv 2409.03363"
    formula = (
        "[mean_t log p(x_t | non-members, x_<t) - gamma mean_t log p(x_t | members, x_<t)] / "
        "mean_t log p(x_t | x_<t)"
    )
    asks = ("tokens", "prefixed", "member_prefixed")

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ValueError(f"gamma should be at least 0, but got {self.gamma}")

    def score(self, evidence: TextEvidence) -> Scores:
        target = evidence.target
        contrast = answered(target.prefixed) - self.gamma * answered(target.member_prefixed)
        return contrast / np.minimum(target.tokens.mean(), -MIN_LOSS)
