"""Attacks on what the target writes when it is given the beginning of the record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Samia(Attack):
    """Share of the rest's n-grams that the target writes itself (Kaneko et al., 2024).

    ROUGE-N recall of the record's rest in each sample, on average: repeated n-grams count as often
    as they stand in both. Words are runs of anything but white space. Needs generated text alone,
    no log-probabilities. No score where the rest has fewer than n words or nothing was sampled.

    Parameters
    ----------
    n : words per n-gram.
    """

    n: int = 1

    name = "samia"
    title = "SaMIA"
    source = "Kaneko et al. 2024, arXiv 2404.11262"
    formula = "mean_n of the share of the n-grams of x's rest that stand in sample n"
    asks = ("samples",)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n should be at least 1, but got {self.n}")

    def score(self, evidence: TextEvidence) -> Scores:
        pairs = zip(evidence.texts, answered(evidence.target.samples), strict=True)
        return np.array([self._recall(text, samples) for text, samples in pairs])

    def _recall(self, text: str, samples: list[tuple[int, str]]) -> float:
        if not samples:
            return float("nan")
        rest = self._n_grams(text[samples[0][0] :])
        total = rest.total()
        if total == 0:
            return float("nan")
        return float(np.mean([(rest & self._n_grams(s)).total() / total for _, s in samples]))

    def _n_grams(self, text: str) -> Counter[tuple[str, ...]]:
        words = text.split()
        return Counter(zip(*(words[i:] for i in range(self.n)), strict=False))
