"""What one attack says to a condition of the release gate: a figure with its limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from raymia.metrics.limits import LADDER, at_error, kept_error
from raymia.metrics.summary import (
    AttackMetrics,
    EpsilonBound,
    LimitedEstimate,
    Metrics,
    NotMeasured,
)
from raymia.results import wording
from raymia.results.ranking import at_budget
from raymia.spec.conditions import Condition

TOO_MANY = 1_000
"""Times the records at hand from which on it is not said how many would decide."""
TOO_MANY_COMPARED = "the condition compares more figures than limits are kept for; name fewer"


@dataclass(frozen=True)
class Levels:
    """Error rates of the lower and of the upper limits that a condition looks at."""

    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """The figure of one attack.

    Attributes
    ----------
    state : `unlimited` where it has no limits that could decide, `not_measured` where there is
        none at all.
    attack : what it is of.
    words : the figure in words; where there is none, why.
    low, high : one-sided limits at the condition's levels; None for none.
    why_no_low : why there is no lower limit, where there is none.
    chosen_by : what it is chosen by among bounds of epsilon.
    records : members or non-members, the fewer.
    """

    state: Literal["measured", "unlimited", "not_measured"]
    attack: str
    words: str
    value: float = 0.0
    low: float | None = None
    high: float | None = None
    why_no_low: str = "no lower limit that counts is"
    chosen_by: float = 0.0
    records: int = 0

    @property
    def text(self) -> str:
        """What to say of the attack."""
        return f"{self.attack}: {self.words}"

    def without_low(self) -> Figure:
        return replace(self, low=None)

    def records_needed(self, limit: float, max_fpr: float | None, levels: Levels) -> int | None:
        """How many records of each kind would decide, if the figure stays: intervals shrink with
        the root of their number. None where it is too near."""
        above = self.value > limit
        edge, apart = (self.low if above else self.high), abs(self.value - limit)
        if edge is None or apart * math.sqrt(TOO_MANY) <= abs(self.value - edge):
            return None
        needed: float = self.records * max(1.0, ((self.value - edge) / apart) ** 2)
        if max_fpr is not None:
            # With fewer, all of them may be below the threshold.
            needed = max(needed, math.log(kept_error(levels.low)) / math.log1p(-max_fpr))
        digits = max(0, math.floor(math.log10(needed)) - 1)
        unit: int = 10**digits
        return math.ceil(needed / unit) * unit


def figure_of(condition: Condition, entry: Metrics, levels: Levels) -> Figure:
    """Read the figure that a condition compares off an attack's metrics."""
    if isinstance(entry, NotMeasured):
        return Figure("not_measured", entry.attack, f"not measured, {entry.reason}")
    if condition.metric == "epsilon":
        return _epsilon(entry, levels)
    if condition.max_fpr is not None:
        return _rate(entry, condition.max_fpr, levels)
    if condition.metric == "auc":
        return _limited(entry, "AUC", entry.auc, levels)
    if entry.balanced_accuracy is None:
        why = "no balanced accuracy: a half of the records lacks members or non-members"
        return Figure("not_measured", entry.attack, why)
    return _limited(entry, "balanced accuracy", entry.balanced_accuracy, levels)


def _rate(entry: AttackMetrics, max_fpr: float, levels: Levels) -> Figure:
    """The rate on all records, whose limits hold that of all members at exactly this budget: a
    threshold chosen on one half may come to several times the budget on the other."""
    at = at_budget(entry, max_fpr)
    name = f"TPR at {wording.budget(max_fpr)} FPR"
    if at is None:
        return Figure("not_measured", entry.attack, f"{name} was not measured")
    if at.estimate is None:
        return Figure("unlimited", entry.attack, f"{name} is {wording.not_resolvable(at)}")
    return _limited(entry, name, at.estimate, levels)


def _limited(entry: AttackMetrics, name: str, estimate: LimitedEstimate, levels: Levels) -> Figure:
    words = f"{name} {estimate.value:.3f}"
    if estimate.limits is None:
        return Figure(
            "unlimited",
            entry.attack,
            f"{words}: an earlier version of raymia measured it and kept no limits that a gate can "
            "rest on; run the audit again, which asks no model for what the store still has",
        )
    low, high = at_error(estimate.limits.low, levels.low), at_error(
        estimate.limits.high, levels.high
    )  # fmt: skip
    if high is None:
        return Figure("unlimited", entry.attack, f"{words}: {TOO_MANY_COMPARED}")
    return Figure(
        "measured",
        entry.attack,
        words if low is None else f"{words} [{low:.3f}, {high:.3f}]",
        value=estimate.value,
        low=low,
        high=high,
        why_no_low=TOO_MANY_COMPARED,
        records=min(entry.n_members, entry.n_non_members),
    )


def _epsilon(entry: AttackMetrics, levels: Levels) -> Figure:
    """The bound that was the highest on the calibration half, and what the held-out one rules out.

    It is chosen on other records, so the number of attacks and methods needs no correction; that of
    checkpoints does.
    """
    best = best_bound(entry)
    if best is None:
        return Figure("not_measured", entry.attack, "no bound on epsilon was measured")
    low = _bound_at(best, levels.high)
    words = f"epsilon is at least {best.value:.3f} ({best.method.replace('_', ' ')})"
    if best.chosen_by is None or low is None:
        return Figure(
            "unlimited",
            entry.attack,
            f"{words}: it was not kept at the error that so many checkpoints ask for; decide on "
            "one checkpoint at a time, or run the audit again",
        )
    held_out = [bound.high for bound in entry.epsilon if bound.method == "held_out"]
    return Figure(
        "measured",
        entry.attack,
        words,
        value=best.value,
        low=low,
        # It is kept at 5 % alone, which is enough for one checkpoint.
        high=held_out[0] if held_out and levels.high >= LADDER[0] else None,
        chosen_by=best.chosen_by,
        records=min(entry.n_members, entry.n_non_members),
    )


def best_bound(entry: AttackMetrics) -> EpsilonBound | None:
    """Of an attack's bounds the one that is the highest on the calibration half; None for none."""
    return max(entry.epsilon, key=lambda bound: (bound.chosen_by or 0.0, bound.value), default=None)


def _bound_at(bound: EpsilonBound, error: float) -> float | None:
    if bound.limits is not None:
        return at_error(bound.limits, error)
    return bound.value if error >= 1.0 - bound.confidence - 1e-9 else None
