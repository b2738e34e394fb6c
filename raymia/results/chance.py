"""What chance explains of an audit's numbers: how often attacks that guess reach as much."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import nhypergeom, norm

from raymia.metrics.roc import allowed_false_positives
from raymia.metrics.summary import AttackMetrics
from raymia.results.ranking import estimate_at, labels_where
from raymia.results.result import RunResult

ERROR_RATE = 0.05
"""Chance, at most, that an audit of checkpoints that leak nothing is said to leak."""

Units = dict[tuple[str, str], AttackMetrics]


@dataclass(frozen=True)
class Chance:
    """Tells what is more than chance in an audit.

    Attributes
    ----------
    combined, fitted : labels of attacks that combine others, and of those that learn from records.
    units : what chance is reckoned on.
    limit : p-value of a single test; there are two on each attack, of its AUC and of its rate.
    """

    combined: set[str]
    fitted: set[str]
    units: Units
    limit: float

    @classmethod
    def of(cls, result: RunResult) -> Chance:
        combined = labels_where(result, lambda card: card.combines)
        tried = sum(
            isinstance(entry, AttackMetrics) and entry.attack not in combined
            for entry in result.metrics
        )
        return cls(
            combined,
            labels_where(result, lambda card: card.learns),
            units_of(result),
            ERROR_RATE / (2 * max(1, tried)),
        )

    def area_shows(self, attack: AttackMetrics) -> bool:
        """Whether the AUC is too far from 0.5, to either side, for a guess."""
        unit = self.units.get((attack.target, attack.attack))
        if unit is None:
            return False
        area = unit.auc.value
        # Where nothing leaks, one that learns from the other folds has an AUC below 0.5 by itself:
        # the more members are in a fold, the fewer are in the others.
        if attack.attack not in self.fitted:
            area = max(area, 1.0 - area)
        return 2 * chance_of_auc(area, unit.n_members, unit.n_non_members) <= self.limit

    def rate_shows(self, attack: AttackMetrics, fpr: float | None) -> bool:
        """Whether the true positive rate at a budget is too high for a guess."""
        unit = self.units.get((attack.target, attack.attack))
        rate = None if unit is None or fpr is None else estimate_at(unit, fpr)
        if unit is None or fpr is None or rate is None:
            return False
        chance = chance_of_rate(rate.value, fpr, unit.n_members, unit.n_non_members)
        return chance <= self.limit


def chance_of_auc(auc: float, n_members: int, n_non_members: int) -> float:
    """How often an attack that guesses reaches this AUC.

    The Mann-Whitney test's normal approximation, one-sided, without correction for ties: those
    make it say more than there is, never less.
    """
    spread = math.sqrt((n_members + n_non_members + 1) / (12 * n_members * n_non_members))
    return float(norm.sf((auc - 0.5) / spread))


def chance_of_rate(tpr: float, max_fpr: float, n_members: int, n_non_members: int) -> float:
    """How often an attack that guesses reaches this true positive rate at a budget, exactly.

    The threshold is the highest-scoring non-member that the budget does not allow. If members score
    as non-members do, the number of members above it is negative hypergeometric.
    """
    hits = round(tpr * n_members)
    if hits == 0:
        return 1.0
    allowed = allowed_false_positives(max_fpr, n_non_members)
    above = nhypergeom(n_members + n_non_members, n_members, allowed + 1)
    return float(above.sf(hits - 1))


def units_of(result: RunResult) -> Units:
    """The attacks by what chance dealt out: records, or groups where whole groups were split, whose
    records are members together, and may be alike."""
    entries = result.group_metrics if result.split_by_group else result.metrics
    return {(m.target, m.attack): m for m in entries if isinstance(m, AttackMetrics)}
