"""Attacks on copies of the record in which words changed places."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.attacks.min_k import count_of
from raymia.evidence.text import TextEvidence


@register
@dataclass(frozen=True)
class Pac(Attack):
    """Polarized distance of the swapped copies, on average, minus the record's (Ye et al., 2024).

    The polarized distance of a text is the mean of its highest token log-probabilities minus the
    mean of its lowest, ``max(1, int(share * tokens))`` of each. Released code has the sign the
    other way, and joins the words by single blanks; here what is between them stays. No score
    without a scored token, or for a record of one word.

    Parameters
    ----------
    high, low : shares of the tokens, in (0, 1].
    """

    high: float = 0.05
    low: float = 0.3

    name = "pac"
    title = "PAC"
    source = "Ye et al. 2024, arXiv 2405.11930"
    formula = (
        "mean_n d(x~_n) - d(x), d = mean of the highest k1 % of log p(x_t | x_<t) - mean of the "
        "lowest k2 %"
    )
    asks = ("tokens", "swaps")

    def __post_init__(self) -> None:
        for name, share in (("high", self.high), ("low", self.low)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} should be in (0, 1], but got {share}")

    def score(self, evidence: TextEvidence) -> Scores:
        tokens = evidence.target.tokens
        records = tokens.per_record(tokens.log_prob)
        pairs = zip(records, answered(evidence.target.swaps), strict=True)
        return np.array([self._difference(record, copies) for record, copies in pairs])

    def _difference(
        self, record: npt.NDArray[np.floating], copies: list[npt.NDArray[np.float32]]
    ) -> float:
        if len(record) == 0 or not copies:
            return float("nan")
        return float(np.mean([self._distance(c) for c in copies]) - self._distance(record))

    def _distance(self, log_prob: npt.NDArray[np.floating]) -> float:
        ordered = np.sort(log_prob.astype(np.float64))
        highest = ordered[-count_of(self.high, ordered) :]
        return float(highest.mean() - ordered[: count_of(self.low, ordered)].mean())
