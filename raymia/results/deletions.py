"""What is left of records that a model was trained again without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from raymia.metrics.limits import at_error
from raymia.metrics.summary import AttackMetrics, Comparison, Estimate, LimitedEstimate
from raymia.results.chance import ERROR_RATE, units_of, what_counts
from raymia.results.gate_result import Deletion, DeletionFinding
from raymia.results.ranking import fitted_on_labels
from raymia.results.result import RunResult
from raymia.results.telling import ON
from raymia.results.wording import count, unit_interval
from raymia.spec import AuditSpec, TargetSpec

CHANCE = 0.5
FEWEST = 10
"""Removed records, and non-members, with fewer of which nothing is said."""
FOUND: Mapping[DeletionFinding | None, str] = {
    "above": "the removed records can still be told from non-members",
    "below": (
        "the removed records score below non-members, so they can be told from them all the same"
    ),
    "alike": "the removed records score like non-members, as far as so many can show",
    "shift": (
        "it cannot be said whether the removed records can still be told from non-members, since "
        "the two differ without any model"
    ),
    "not_tested": (
        "it cannot be said whether the removed records can still be told from non-members, since "
        "too few of them count, or too many models were trained again"
    ),
    None: (
        "an earlier version did not test whether the removed records can still be told from "
        "non-members as it is done now: run the audit again, which asks for nothing that is stored"
    ),
}


def retrained(spec: AuditSpec) -> dict[str, str]:
    """The targets that were trained again without the members, each with the one that was trained
    on them."""
    return {
        target.name: target.without_members_of
        for target in spec.targets
        if isinstance(target, TargetSpec) and target.without_members_of is not None
    }


def deletions_of(spec: AuditSpec, result: RunResult) -> list[Deletion]:
    """Hold each model that was trained again beside the one before, by the attack that led there.

    Both scored the same members and non-members; where fewer than ten of a kind were scored on
    both, nothing is said. Both AUCs are of what tests against chance count: of groups where groups
    were split, and of distinct records where some are copies. Where nothing is left of the removed
    records, the chance that it is said of any model is 5 % at most.
    """
    afters = retrained(spec)
    return [
        _deletion(pair, result, ERROR_RATE / len(afters))
        for after, before in afters.items()
        for pair in result.comparisons
        if _is_of(pair, before, after) and min(pair.n_members, pair.n_non_members) >= FEWEST
    ]


def _deletion(pair: Comparison, result: RunResult, error: float) -> Deletion:
    units = units_of(result)
    places = (pair.target, pair.attack), (pair.other_target, pair.attack)
    is_tested = all(
        place in units and min(units[place].n_members, units[place].n_non_members) >= FEWEST
        for place in places
    )
    if not is_tested:
        units = {(m.target, m.attack): m for m in result.metrics if isinstance(m, AttackMetrics)}
    before, after = (units[place].auc for place in places)
    finding: DeletionFinding = "not_tested"
    if result.shift is not None and result.shift.level == "stop":
        finding = "shift"
    elif is_tested:
        finding = _finding(after, error, pair.attack in fitted_on_labels(result))
    return Deletion(
        target=pair.other_target,
        before=pair.target,
        attack=pair.attack,
        n_removed=pair.n_members,
        n_non_members=pair.n_non_members,
        of=what_counts(result) if is_tested else "records",
        auc_before=_alone(before),
        auc_after=_alone(after),
        finding=finding,
        difference=pair,
    )


def _finding(auc: LimitedEstimate, error: float, fitted: bool) -> DeletionFinding:
    """What an AUC shows with so much error, half of it on either side.

    Parameters
    ----------
    fitted : whether the attack was fitted on labels: where nothing is left, its AUC is below 0.5 by
        itself.
    """
    if auc.limits is None:
        return "not_tested"
    low, high = (at_error(kept, error / 2) for kept in (auc.limits.low, auc.limits.high))
    if low is None or high is None:
        return "not_tested"
    if low > CHANCE:
        return "above"
    return "below" if high < CHANCE and not fitted else "alike"


def _alone(one: Estimate) -> Estimate:
    """An estimate without what a gate needs beside it."""
    return Estimate(value=one.value, low=one.low, high=one.high)


def _is_of(pair: Comparison, before: str, after: str) -> bool:
    return pair.between == "targets" and (pair.target, pair.other_target) == (before, after)


def deletion_lines(deletions: Iterable[Deletion]) -> Iterator[str]:
    """Say of each whether the removed records are told from non-members, for a person to read."""
    for one in deletions:
        after, less = one.auc_after, one.difference
        found = FOUND[one.finding]
        if one.finding == "alike" and not after.low <= CHANCE <= after.high:
            found += "; that the interval leaves 0.5 out is no more than chance explains"
        yield (
            f"{one.target}, trained again without the members of {one.before}: {found} "
            f"({count(one.n_removed)} of them, {one.attack}: AUC {after.value:.3f} "
            f"{unit_interval(after)}{ON[one.of]}). On {one.before}, where {one.attack} leads, it "
            f"is {one.auc_before.value:.3f}; on the records that both scored the AUCs differ by "
            f"{less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]"
        )
