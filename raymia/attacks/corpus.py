"""Attacks that compare the target with the frequency of tokens in language at large."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class DcPdd(Attack):
    """Divergence of the target's token probabilities from a corpus (Zhang et al., EMNLP 2024).

    Over the first occurrence of each token in the record, the cross term of the target's
    probability and the token's frequency f, which is ``(1 + count) / (all counts + vocabulary)``.
    Released code counts a token once per document, or puts counts in the place of frequencies. No
    score without a scored token, or where the model predicts tokens that its tokenizer lacks.

    Parameters
    ----------
    bound : largest contribution of one token, above 0.
    """

    bound: float = 0.01

    name = "dc_pdd"
    title = "DC-PDD"
    source = "Zhang et al. 2024, arXiv 2409.14781"
    formula = "mean over first occurrences of min(p(x_t | x_<t) log(1 / f(x_t)), a)"
    needs = frozenset({"corpus", "tokenizer"})

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"bound should be above 0, but got {self.bound}")

    def score(self, evidence: TextEvidence) -> Scores:
        counts, tokens = answered(evidence.corpus).counts, evidence.target.tokens
        rarity = -np.log((1.0 + counts) / (counts.sum() + len(counts)))
        return np.array(
            [
                self._mean(tokens.token_ids[a:b], tokens.log_prob[a:b], rarity)
                for a, b in pairwise(tokens.offsets)
            ]
        )

    def _mean(
        self,
        ids: npt.NDArray[np.int32],
        log_prob: npt.NDArray[np.float32],
        rarity: npt.NDArray[np.float64],
    ) -> float:
        if len(ids) == 0 or ids.max() >= len(rarity):
            return float("nan")
        _, first = np.unique(ids, return_index=True)
        terms = np.exp(log_prob[first].astype(np.float64)) * rarity[ids[first]]
        return float(np.minimum(terms, self.bound).mean())
