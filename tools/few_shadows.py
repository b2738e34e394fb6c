"""Measure what LiRA tells with few shadows, with a prior for the variance and without.

python tools/few_shadows.py                # prints the table of docs/statistics.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from raymia.attacks.likelihood_ratio import AmongShadows, Online
from raymia.attacks.student_ratio import StudentOnline

AUDITS, RECORDS, FPR = 20, 2_000, 0.01
SHADOWS = (4, 8, 16)
VARIANCES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "inverse chi-square": lambda draws: 3 / draws.chisquare(3, RECORDS),
    "log-normal": lambda draws: np.exp(draws.normal(0, 1, RECORDS)),
    "one for all": lambda _: np.ones(RECORDS),
}
Scores = np.ndarray


def audit(count: int, kind: str, seed: int) -> tuple[Scores, Any]:
    """Membership, and evidence in which a model's answers are its statistics."""
    draws = np.random.default_rng(seed)
    variance = VARIANCES[kind](draws)
    mean, gap = draws.normal(-2, 1, RECORDS), np.exp(draws.normal(0, 0.5, RECORDS))
    is_in = np.argsort(draws.random((count, RECORDS)), axis=0) < count // 2
    is_member = draws.random(RECORDS) < 0.5
    noise = np.sqrt(variance) * draws.normal(size=(count + 1, RECORDS))
    phi = mean + gap * np.vstack([is_member, is_in]) + noise
    pairs = zip(phi[1:], is_in, strict=True)
    shadows = [SimpleNamespace(model=one, is_in=who) for one, who in pairs]
    return is_member, SimpleNamespace(target=phi[0], shadows=shadows)


@dataclass(frozen=True)
class Lira(Online):
    """On statistics that are there already."""

    def statistic(self, model: Scores) -> Scores:
        return model


@dataclass(frozen=True)
class LiraT(StudentOnline):
    """On statistics that are there already."""

    def statistic(self, model: Scores) -> Scores:
        return model


METHODS: dict[str, AmongShadows] = {
    "`lira`": Lira(),
    "`lira`, own variances": Lira(fixed_variance=False),
    "`lira_t`": LiraT(),
}


def told(is_member: Scores, scores: Scores) -> tuple[float, float]:
    """AUC, and TPR at the false-positive rate."""
    fpr, tpr, _ = roc_curve(is_member, scores)
    return float(roc_auc_score(is_member, scores)), float(tpr[fpr <= FPR].max())


def table() -> str:
    """All rows, as markdown."""
    lines = [f"| variances | shadows | {' | '.join(METHODS)} |", "|---|---|---|---|---|"]
    for kind in VARIANCES:
        for count in SHADOWS:
            audits = [audit(count, kind, seed) for seed in range(AUDITS)]
            cells = []
            for attack in METHODS.values():
                found = np.mean([told(who, attack.score(given)) for who, given in audits], axis=0)
                cells.append(f"{found[0]:.3f}, {found[1]:.1%}".replace("%", " %"))
            lines.append(f"| {kind} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
