"""Which attack comes first. One rule for the terminal, the report and its verdict.

The attacks on a target are ranked on one half of the records, the calibration half, by their true
positive rate at 1 % false positives there. The numbers of the first are then read off the other
half: the best of twenty attacks looks better than it is on the records that made it the best, and
not on others. Where no attack resolves 1 % on that half, or the audit did not ask for it, the
smallest budget that some attack resolves takes its place; where there is none, the AUC alone
decides. A budget below 1 % is not used even where it is resolvable, because it rests on very few
non-members. Runs of earlier versions are ranked on all records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from raymia.metrics.roc import allowed_false_positives
from raymia.metrics.summary import AttackMetrics, Estimate, NotMeasured, TprAtFpr
from raymia.results.result import AttackCard, RunResult

if TYPE_CHECKING:
    from raymia.results.chance import Counted

USUAL_FPR = 0.01
FEW_FALSE_POSITIVES = 10
"""Below this many allowed false positives a reader is told on how few a rate rests."""


@dataclass(frozen=True)
class TargetRanking:
    """The attacks on one target, best first.

    Attributes
    ----------
    fpr : float or None
        The budget of false positives that the attacks are ranked by; none means AUC.
    counted : what is scored: records, distinct ones, or groups of records.
    """

    target: str
    fpr: float | None
    measured: list[AttackMetrics]
    not_measured: list[NotMeasured]
    counted: Counted = "records"

    @property
    def positives(self) -> str:
        """What those are called that are to be found."""
        before = {"records": "", "distinct": "distinct ", "groups": "groups of "}
        return f"{before[self.counted]}members"

    @property
    def negatives(self) -> tuple[str, str]:
        """What one of those is called that may be accused wrongly, and several."""
        if self.counted == "groups":
            return "group of non-members", "groups of non-members"
        one = "distinct non-member" if self.counted == "distinct" else "non-member"
        return one, f"{one}s"


def at_budget(metrics: AttackMetrics, max_fpr: float) -> TprAtFpr | None:
    """Give what was measured at a budget; none if not asked for."""
    return next((tpr for tpr in metrics.tpr if tpr.max_fpr == max_fpr), None)


def estimate_at(metrics: AttackMetrics, max_fpr: float) -> Estimate | None:
    """Give the true positive rate at a budget; none if not resolvable or not asked for."""
    at = at_budget(metrics, max_fpr)
    return None if at is None else at.estimate


def ranking_fpr(measured: Sequence[AttackMetrics]) -> float | None:
    """Choose the budget to rank by."""
    resolvable = {
        at.max_fpr
        for attack in measured
        for at in attack.tpr
        if (at.resolvable if attack.held_out_auc is None else rate_on_calibration(at) is not None)
    }
    if USUAL_FPR in resolvable:
        return USUAL_FPR
    return min(resolvable, default=None)


def rate_on_calibration(at: TprAtFpr) -> float | None:
    """The true positive rate on the calibration half; none if not resolvable there."""
    return None if at.held_out is None else at.held_out.calibration_tpr


def held_out_rate(metrics: AttackMetrics, max_fpr: float | None) -> Estimate | None:
    """The rate to tell of an attack: on records that it was not ranked on, or else on all."""
    at = None if max_fpr is None else at_budget(metrics, max_fpr)
    if at is None:
        return None
    return at.estimate if at.held_out is None else at.held_out.tpr


def held_out_area(metrics: AttackMetrics) -> Estimate:
    """The AUC to tell of an attack: on records that it was not ranked on, or on all."""
    return metrics.auc if metrics.held_out_auc is None else metrics.held_out_auc


def rank(metrics: Sequence[AttackMetrics | NotMeasured]) -> list[TargetRanking]:
    """Rank the attacks on each target; targets stay in order of first appearance."""
    rankings = []
    for target in dict.fromkeys(entry.target for entry in metrics):
        own = [entry for entry in metrics if entry.target == target]
        measured = [entry for entry in own if isinstance(entry, AttackMetrics)]
        fpr = ranking_fpr(measured)
        rankings.append(
            TargetRanking(
                target=target,
                fpr=fpr,
                measured=sorted(measured, key=lambda entry: _strength(entry, fpr), reverse=True),
                not_measured=[entry for entry in own if isinstance(entry, NotMeasured)],
            )
        )
    return rankings


def strength_across(rankings: Sequence[TargetRanking]) -> Callable[[TargetRanking], float]:
    """What the best attacks on several targets, each measured, compare by.

    True positive rates compare only at one budget; without a common one the AUC decides.
    """
    common = _common_budget(rankings)

    def strength(ranking: TargetRanking) -> float:
        best = ranking.measured[0]
        estimate = estimate_at(best, common) if common is not None else None
        return best.auc.value if estimate is None else estimate.value

    return strength


def exposure_across(
    rankings: Sequence[TargetRanking],
) -> Callable[[AttackMetrics], tuple[float, float]]:
    """What the leading attacks on several targets compare by: the lower limits of the rate at the
    budget that all are ranked by, and of the AUC, so that a rate that rests on one record puts
    nothing first. It is to be given attacks as they were tested, see `Chance.tested`."""
    common = _common_budget(rankings)

    def exposure(leader: AttackMetrics) -> tuple[float, float]:
        rate = None if common is None else estimate_at(leader, common)
        return -1.0 if rate is None else rate.low, leader.auc.low

    return exposure


def _common_budget(rankings: Sequence[TargetRanking]) -> float | None:
    """The budget that all targets that were measured are ranked by: rates at two budgets do not
    compare."""
    fprs = {ranking.fpr for ranking in rankings if ranking.measured}
    return fprs.pop() if len(fprs) == 1 else None


def leading(ranking: TargetRanking, combined: Collection[str]) -> AttackMetrics:
    """The best attack on a target that was measured; a combination of attacks only where it is
    alone.

    Parameters
    ----------
    combined : the attacks that combine others.
    """
    single = (attack for attack in ranking.measured if attack.attack not in combined)
    return next(single, ranking.measured[0])


def labels_where(result: RunResult, holds: Callable[[AttackCard], bool]) -> set[str]:
    """What the attacks are called of which something holds, with every setting and reference."""
    cards = [card for card in result.attacks if holds(card)]
    return {label for card in cards for label in card.labels or [card.name]}


def fitted_on_labels(result: RunResult) -> set[str]:
    """What the attacks are called that are fitted on which of the audit's records are members.

    Cards of earlier runs do not say so: that of a network said that it learns also where it was
    fitted on shadows, as each was in a run with shadows.
    """
    has_shadows = any(card.kind == "shadow" for card in result.references)

    def is_fitted(card: AttackCard) -> bool:
        if card.fitted_on_labels is None:
            return card.learns and (card.combines or not has_shadows)
        return card.fitted_on_labels

    return labels_where(result, is_fitted)


def of_groups_of(target: str) -> str:
    """What headings and curves call the groups of records that a target was measured on."""
    return f"{target}, by group"


def by_groups(result: RunResult) -> list[TargetRanking]:
    """Rank the attacks over groups of records, under headings of their own."""
    return [
        replace(ranking, target=of_groups_of(ranking.target), counted="groups")
        for ranking in rank(result.group_metrics)
    ]


def of_distinct_of(target: str) -> str:
    """What headings call the distinct records that a target was measured on."""
    return f"{target}, distinct records"


def by_distinct(result: RunResult) -> list[TargetRanking]:
    """Rank the attacks over distinct records, under headings of their own; over groups by their
    distinct records where groups that were split share copies."""
    counted: Counted = "groups" if result.split_by_group else "distinct"
    return [
        replace(ranking, target=of_distinct_of(ranking.target), counted=counted)
        for ranking in rank(result.distinct_metrics)
    ]


def every_ranking(result: RunResult) -> list[TargetRanking]:
    """Rank the attacks over records, then over distinct ones, then over groups."""
    return [*rank(result.metrics), *by_distinct(result), *by_groups(result)]


def few_allowed(ranking: TargetRanking) -> list[tuple[float, int]]:
    """List the budgets that allow so few false positives that a rate at them is rough."""
    n_non_members = max((attack.n_non_members for attack in ranking.measured), default=0)
    budgets = {tpr.max_fpr for attack in ranking.measured for tpr in attack.tpr}
    allowed = {fpr: allowed_false_positives(fpr, n_non_members) for fpr in sorted(budgets)}
    return [(fpr, n) for fpr, n in allowed.items() if 0 < n < FEW_FALSE_POSITIVES]


def _strength(metrics: AttackMetrics, fpr: float | None) -> tuple[float, float]:
    at = at_budget(metrics, fpr) if fpr is not None else None
    if metrics.held_out_auc is not None:
        rate = None if at is None else rate_on_calibration(at)
        return (-1.0 if rate is None else rate, metrics.held_out_auc.calibration)
    estimate = None if at is None else at.estimate
    return (-1.0 if estimate is None else estimate.value, metrics.auc.value)
