"""How often is a release gate wrong, and how often undecided? Made-up releases of known truth.

    python tools/gate_errors.py                # prints the table of docs/statistics.md
    python tools/gate_errors.py --releases 100

The condition is `any.tpr@1%fpr > 0.05`. Every attack has the same true rate, on scores of its own.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from scipy import stats

from raymia.metrics.limits import LADDER, limited, tpr_limits
from raymia.metrics.roc import roc_curve, tpr_at_fpr
from raymia.metrics.summary import AttackMetrics, LimitedEstimate, Metrics, TprAtFpr
from raymia.results.gate import decide_again
from raymia.results.result import RecordCounts, RunResult

TRUTHS = (0.0, 0.02, 0.05, 0.08, 0.15)
SIZES = (100, 400, 1_000)
ATTACKS = (1, 20)
MAX_FPR, NUMBER = 0.01, 0.05
CONDITION = f"any.tpr@1%fpr > {NUMBER:g}"


def release(draws: np.random.Generator, truth: float, size: int, attacks: int) -> RunResult:
    """An audit of one checkpoint with as many members as non-members."""
    is_member = np.arange(2 * size) < size
    shift = stats.norm.isf(MAX_FPR) - stats.norm.isf(truth) if truth else -50.0
    metrics: list[Metrics] = []
    for number in range(attacks):
        curve = roc_curve(draws.normal(size=2 * size) + shift * is_member, is_member)
        limits = tpr_limits(curve, MAX_FPR, [0.025, *LADDER])
        rate = LimitedEstimate(**limited(tpr_at_fpr(curve, MAX_FPR), limits))
        metrics.append(
            AttackMetrics(
                target="t", attack=f"a{number}", n_members=size, n_non_members=size, n_unscored=0,
                auc=rate, balanced_accuracy=None, one_minus_eer=0.5, confidence=0.95,
                tpr=[TprAtFpr(
                    max_fpr=MAX_FPR, resolvable=True, estimate=rate, needed_non_members=100
                )],
            )
        )  # fmt: skip
    return RunResult(
        name="made up", created="", versions={}, seed=0, code_version="", metrics=metrics,
        records=RecordCounts(members=size, non_members=size, candidates=0, set_aside=0),
        dropped_total=0, complete=True, audit_yaml="", seconds=0.0,
    )  # fmt: skip


def shares(truth: float, size: int, attacks: int, releases: int, seed: int = 0) -> dict[str, float]:
    """The share of releases by what the gate said of them."""
    draws = np.random.default_rng([seed, size, attacks, round(1000 * truth)])
    found = Counter(
        decide_again(release(draws, truth, size, attacks), [CONDITION])[0].status
        for _ in range(releases)
    )
    return {status: found[status] / releases for status in ("failed", "passed", "undecided")}


def table(releases: int) -> str:
    """The shares in Markdown."""
    lines = ["| true TPR | records of each kind | attacks | failed | passed | undecided |"]
    lines.append("|---|---|---|---|---|---|")
    for truth in TRUTHS:
        for size in SIZES:
            for attacks in ATTACKS:
                found = shares(truth, size, attacks, releases)
                cells = " | ".join(f"{100 * share:.1f} %" for share in found.values())
                lines.append(f"| {100 * truth:g} % | {size:,} | {attacks} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=400, help="made-up releases for each row")
    print(table(parser.parse_args().releases))
