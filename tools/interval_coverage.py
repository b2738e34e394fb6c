"""How often do intervals hold the truth? Made-up audits of known truth, over a grid.

    python tools/interval_coverage.py            # prints the tables of docs/statistics.md
    python tools/interval_coverage.py --audits 200

Two shapes of scores: `normal`, where members' scores are shifted, and `few`, where some members
stand far above all non-members and the others score like non-members.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from raymia.metrics.delong import auc_spread_of
from raymia.metrics.intervals import auc_interval
from raymia.metrics.limits import tpr_limits
from raymia.metrics.roc import BoolArray, FloatArray, RocCurve, auc, roc_curve

SIZES = ((10, 10_000), (20, 1_000), (100, 1_000), (100, 100), (400, 400), (1_000, 1_000),
         (1_000, 100), (1_000, 20), (10_000, 10))  # fmt: skip
AUCS = (0.5, 0.7, 0.9, 0.99)
RATES = (0.01, 0.05, 0.3, 0.9)
BUDGETS = (0.1, 0.01)
FAR = 8.0


@dataclass(frozen=True)
class Setting:
    """Made-up audits: how many members and non-members, and how scores of members come about."""

    n_members: int
    n_non_members: int
    shift: float
    share: float

    def audits(self, count: int, seed: int) -> Iterator[tuple[FloatArray, BoolArray]]:
        """Scores and memberships of so many audits."""
        draws = np.random.default_rng([seed, self.n_members, self.n_non_members])
        is_member = np.arange(self.n_members + self.n_non_members) < self.n_members
        for _ in range(count):
            scores = draws.normal(size=is_member.size)
            scores[: self.n_members] += self.shift * (draws.random(self.n_members) < self.share)
            yield scores, is_member


def settings_of_auc(n_members: int, n_non_members: int, truth: float) -> list[Setting]:
    """Audits of a true AUC, of both shapes."""
    shift = float(np.sqrt(2) * stats.norm.ppf(truth))
    share = (truth - 0.5) / (stats.norm.cdf(FAR / np.sqrt(2)) - 0.5)
    return [Setting(n_members, n_non_members, shift, 1.0),
            Setting(n_members, n_non_members, FAR, share)]  # fmt: skip


def settings_of_rate(
    n_members: int, n_non_members: int, max_fpr: float, truth: float
) -> list[Setting]:
    """Audits of a true rate at a budget, of the shapes that can have it."""
    threshold = stats.norm.isf(max_fpr)
    found = [Setting(n_members, n_non_members, float(threshold - stats.norm.isf(truth)), 1.0)]
    share = (truth - max_fpr) / (stats.norm.sf(threshold - FAR) - max_fpr)
    return found if share < 0 else [*found, Setting(n_members, n_non_members, FAR, share)]


def coverage(
    settings: list[Setting],
    interval: Callable[[RocCurve], tuple[float, float]],
    truth: float,
    audits: int,
    seed: int,
) -> str:
    """The share of audits whose interval holds the truth, in percent, one for each shape."""
    shares = []
    for setting in settings:
        limits = np.array([interval(roc_curve(*made)) for made in setting.audits(audits, seed)])
        shares.append(np.mean((limits[:, 0] <= truth) & (truth <= limits[:, 1])))
    return ", ".join(f"{100 * share:.0f}" for share in shares)


def of_auc(curve: RocCurve) -> tuple[float, float]:
    """The 95 % interval of the AUC."""
    return auc_interval(auc(curve), auc_spread_of(curve), 0.95)


def of_rate(max_fpr: float) -> Callable[[RocCurve], tuple[float, float]]:
    """The 95 % interval of the true positive rate at a budget."""

    def interval(curve: RocCurve) -> tuple[float, float]:
        low, high = tpr_limits(curve, max_fpr, [0.025])[:, 0]
        return float(low), float(high)

    return interval


def tables(audits: int) -> str:
    """Both tables in Markdown."""
    lines = ["| members : non-members | " + " | ".join(f"AUC {a:g}" for a in AUCS) + " |"]
    lines.append("|---" * (1 + len(AUCS)) + "|")
    for m, n in SIZES:
        cells = [coverage(settings_of_auc(m, n, a), of_auc, a, audits, 1) for a in AUCS]
        lines.append(f"| {m:,} : {n:,} | " + " | ".join(cells) + " |")
    for budget in BUDGETS:
        heads = " | ".join(f"TPR {100 * rate:g} %" for rate in RATES)
        lines += ["", f"At {100 * budget:g} % FPR:", "", f"| members : non-members | {heads} |"]
        lines.append("|---" * (1 + len(RATES)) + "|")
        for m, n in SIZES:
            cells = [
                coverage(settings_of_rate(m, n, budget, r), of_rate(budget), r, audits, 2)
                for r in RATES
            ]
            lines.append(f"| {m:,} : {n:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audits", type=int, default=500, help="made-up audits for each cell")
    print(tables(parser.parse_args().audits))
