"""What chance explains of an audit's numbers: how often attacks that guess reach as much.

An attack is tested by its AUC, and in the tail: at every budget of false positives that its
non-members resolve, and by the members above all of them. A few members that stand out are no more
than a trace in the AUC, and at one budget they may be lost among the false positives it allows. The
error is divided: half for the AUC, half for the tests of the tail in equal parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import scipy

from raymia.metrics.intervals import FITTED_SHARE
from raymia.metrics.roc import allowed_false_positives
from raymia.metrics.summary import AttackMetrics, Metrics
from raymia.results.ranking import fitted_on_labels, labels_where
from raymia.results.result import RunResult

ERROR_RATE = 0.05
"""Chance, at most, that an audit of checkpoints that leak nothing is said to leak."""

Units = dict[tuple[str, str], AttackMetrics]
Counted = Literal["records", "distinct", "groups"]
"""What is independent of each other, and counted: records; distinct ones, where some nearly copy
others of their side; groups, where whole groups were split."""


@dataclass(frozen=True)
class Test:
    """One test of one attack.

    Attributes
    ----------
    of : what is tested: the AUC, the rate at a budget, or the members above all non-members.
    max_fpr : the budget; None for the others.
    p_value : how often an attack that guesses does as well.
    error : the p-value up to which it is more than chance.
    """

    of: Literal["area", "rate", "top"]
    max_fpr: float | None
    p_value: float
    error: float

    @property
    def shows(self) -> bool:
        return self.p_value <= self.error


@dataclass(frozen=True)
class Chance:
    """Tells what is more than chance in an audit.

    Attributes
    ----------
    combined, fitted : labels of attacks that combine others, and of those that are fitted on which
        records are members.
    units : what chance is reckoned on.
    error : of all tests of one attack together.
    counted : what the units are.
    tried : attacks on checkpoints that the error is divided among.
    """

    combined: set[str]
    fitted: set[str]
    units: Units
    error: float
    counted: Counted = "records"
    tried: int = 1

    @classmethod
    def of(cls, result: RunResult) -> Chance:
        combined = labels_where(result, lambda card: card.combines)
        tried = sum(
            isinstance(entry, AttackMetrics) and entry.attack not in combined
            for entry in result.metrics
        )
        return cls(
            combined,
            fitted_on_labels(result),
            units_of(result),
            ERROR_RATE / max(1, tried),
            what_counts(result),
            tried,
        )

    def unit(self, attack: AttackMetrics) -> AttackMetrics | None:
        """An attack as chance dealt it out: on records, distinct ones, or groups."""
        return self.units.get((attack.target, attack.attack))

    def tested(self, attack: AttackMetrics) -> AttackMetrics:
        """The numbers that are told of an attack, of what it was tested on; of records where it
        was not tested."""
        return self.unit(attack) or attack

    def shown(self, attack: AttackMetrics, fpr: float | None) -> list[Test]:
        """The tests that chance does not explain: at budget `fpr` first, then by p-value."""
        found = [test for test in self.tests(attack) if test.shows]
        return sorted(found, key=lambda test: (test.max_fpr is None or test.max_fpr != fpr,
                                               test.of == "area", test.p_value))  # fmt: skip

    def can_show(self, attack: AttackMetrics) -> bool:
        """Whether chance does not explain an attack that makes no mistake."""
        unit = self.unit(attack)
        if unit is None:
            return False
        sizes = self.sizes(unit)
        if unit.attack in self.fitted:
            return 2 * chance_of_auc(1.0, *sizes) <= self.error
        budgets = [at.max_fpr for at in unit.tpr if at.estimate is not None]
        budgets += [0.0] * (unit.above_all is not None)
        share = self.error / 2 / max(1, len(budgets))
        return 2 * chance_of_auc(1.0, *sizes) <= self.error / 2 or any(
            chance_of_rate(1.0, fpr, *sizes) <= share for fpr in budgets
        )

    def sizes(self, unit: AttackMetrics) -> tuple[int, int]:
        """How many independent members and non-members an attack was measured on. Of one that was
        fitted on their labels they are fewer: each record also spoke for those it taught."""
        known = FITTED_SHARE if unit.attack in self.fitted else 1.0
        return max(1, int(unit.n_members * known)), max(1, int(unit.n_non_members * known))

    def tests(self, attack: AttackMetrics) -> list[Test]:
        """Test an attack's AUC and its tail; nothing where its units were not measured.

        One that was fitted on labels is tested by its AUC alone, where that is high. In the tail a
        few records that taught each other may be all there is. And where nothing leaks, its AUC is
        below 0.5 by itself: the more members are in a fold, the fewer are in the others.
        """
        unit = self.unit(attack)
        if unit is None:
            return []
        area, sizes = unit.auc.value, self.sizes(unit)
        if attack.attack in self.fitted:
            p_value = min(1.0, 2 * chance_of_auc(area, *sizes))
            return [Test("area", None, p_value, self.error)]
        both_sides = min(1.0, 2 * chance_of_auc(max(area, 1.0 - area), *sizes))
        tail = list(_tail(unit))
        share = self.error / 2 / max(1, len(tail))
        return [
            Test("area", None, both_sides, self.error / 2),
            *(Test("top" if fpr is None else "rate", fpr, p, share) for fpr, p in tail),
        ]


def _tail(unit: AttackMetrics) -> Iterator[tuple[float | None, float]]:
    """Each resolved budget, and None for the members above all non-members, with its p-value."""
    m, n = unit.n_members, unit.n_non_members
    for at in unit.tpr:
        if at.estimate is not None:
            yield at.max_fpr, chance_of_rate(at.estimate.value, at.max_fpr, m, n)
    if unit.above_all is not None:
        yield None, chance_of_rate(unit.above_all / unit.n_members, 0.0, m, n)


def chance_of_auc(auc: float, n_members: int, n_non_members: int) -> float:
    """How often an attack that guesses reaches this AUC.

    The Mann-Whitney test's normal approximation, one-sided, without correction for ties: those
    make it say more than there is, never less.
    """
    return float(scipy.stats.norm.sf((auc - 0.5) / spread_of_chance(n_members, n_non_members)))


def spread_of_chance(n_members: int, n_non_members: int) -> float:
    """Standard deviation of the AUC of an attack that guesses."""
    return math.sqrt((n_members + n_non_members + 1) / (12 * n_members * n_non_members))


def chance_of_rate(tpr: float, max_fpr: float, n_members: int, n_non_members: int) -> float:
    """How often an attack that guesses reaches this true positive rate at a budget, exactly.

    The threshold is the highest-scoring non-member that the budget does not allow. If members score
    as non-members do, the number of members above it is negative hypergeometric.
    """
    hits = round(tpr * n_members)
    if hits == 0:
        return 1.0
    allowed = allowed_false_positives(max_fpr, n_non_members)
    # So many members are above it where the records that are as many as these and the allowed
    # non-members together hold no more non-members than are allowed.
    records = n_members + n_non_members
    return float(scipy.stats.hypergeom.cdf(allowed, records, n_non_members, hits + allowed))


def what_counts(result: RunResult) -> Counted:
    """What chance dealt out: records; or groups where whole groups were split, whose records are
    members together, and may be alike. Of records that nearly copy each other one counts: a model
    that likes one likes all, so that together they pass a threshold or do not."""
    if result.split_by_group:
        return "groups"
    copies = None if result.shift is None else result.shift.copies
    return "distinct" if copies is not None and copies.groups else "records"


def units_of(result: RunResult) -> Units:
    """The attacks by what chance dealt out; none where these were not measured, or not so that
    they can be compared, in earlier runs."""
    entries = counted_in(result, what_counts(result))
    return {(m.target, m.attack): m for m in entries if isinstance(m, AttackMetrics)}


def counted_in(result: RunResult, counted: Counted) -> list[Metrics]:
    """Every attack on records, distinct ones, or groups: on these by their distinct records where
    groups that were split share copies. Groups whose scores are means of unlike
    numbers of records, as in earlier runs, are left out."""
    if counted == "groups":
        distinct = result.split_by_group and share_copies(result)
        entries = result.distinct_metrics if distinct else result.group_metrics
        return [entry for entry in entries if not is_mean_of_all(entry)]
    return result.metrics if counted == "records" else result.distinct_metrics


def share_copies(result: RunResult) -> bool:
    """Whether records of some groups nearly copy records of others."""
    copies = None if result.shift is None else result.shift.copies
    return copies is not None and bool(copies.across_groups)


def is_mean_of_all(entry: Metrics) -> bool:
    """Whether a group's score is the mean of all its records, however many, as in earlier runs."""
    return isinstance(entry, AttackMetrics) and entry.records_per_group is None
