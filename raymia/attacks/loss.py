"""Attacks on the likelihood of the record alone."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import MIN_LOSS, Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Loss(Attack):
    """Mean log-probability per token (Yeom et al., CSF 2018). No score without a scored token."""

    name = "loss"
    title = "Loss"
    source = "Yeom et al. 2018, arXiv 1709.01604"
    formula = "mean_t log p(x_t | x_<t)"

    def score(self, evidence: TextEvidence) -> Scores:
        return evidence.target.tokens.mean()


@register
@dataclass(frozen=True)
class Zlib(Attack):
    """Mean log-probability over the text's zlib-compressed size (Carlini et al., USENIX 2021).

    The size is that of ``zlib.compress`` at its default level on the UTF-8 text, in bytes.
    """

    name = "zlib"
    title = "Zlib"
    source = "Carlini et al. 2021, arXiv 2012.07805"
    formula = "mean_t log p(x_t | x_<t) / len(zlib(x))"

    def score(self, evidence: TextEvidence) -> Scores:
        sizes = [len(zlib.compress(t.encode())) for t in evidence.texts]
        return evidence.target.tokens.mean() / np.array(sizes, dtype=np.float64)


@register
@dataclass(frozen=True)
class Lowercase(Attack):
    """Mean log-probability over the mean loss of the record in lower case (Carlini et al., 2021).

    Minus the ratio of the two losses: a model that knows a text by heart loses most when it is
    spelled in another way. The loss in lower case is at least 1e-6. A record without capitals is
    its own lower case and scores exactly -1, whatever the model knows: where many are, the attack
    tells nothing of these. No score without a scored token.
    """

    name = "lowercase"
    title = "Lowercase"
    source = "Carlini et al. 2021, arXiv 2012.07805"
    formula = "mean_t log p(x_t | x_<t) / -mean_t log p(lower(x)_t | lower(x)_<t)"
    asks = ("tokens", "lowercase")

    def score(self, evidence: TextEvidence) -> Scores:
        lowercase = np.maximum(-answered(evidence.target.lowercase), MIN_LOSS)
        return evidence.target.tokens.mean() / lowercase
