"""What is left of records that a model was trained again without."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raymia.metrics.summary import AttackMetrics, Comparison, Estimate
from raymia.results.gate_result import Deletion
from raymia.results.result import RunResult
from raymia.results.wording import count, unit_interval
from raymia.spec import AuditSpec, TargetSpec

CHANCE = 0.5


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
    both, nothing is said.
    """
    measured = {
        (one.target, one.attack): one.auc
        for one in result.metrics
        if isinstance(one, AttackMetrics)
    }
    return [
        Deletion(
            target=after,
            before=before,
            attack=pair.attack,
            n_removed=pair.n_members,
            n_non_members=pair.n_non_members,
            auc_before=_alone(measured[before, pair.attack]),
            auc_after=_alone(measured[after, pair.attack]),
            difference=pair,
        )
        for after, before in retrained(spec).items()
        for pair in result.comparisons
        if _is_of(pair, before, after)
    ]


def _alone(one: Estimate) -> Estimate:
    """An estimate without what a gate needs beside it."""
    return Estimate(value=one.value, low=one.low, high=one.high)


def _is_of(pair: Comparison, before: str, after: str) -> bool:
    return pair.between == "targets" and (pair.target, pair.other_target) == (before, after)


def deletion_lines(deletions: Iterable[Deletion]) -> Iterator[str]:
    """Say of each whether the removed records are told from non-members, for a person to read."""
    for one in deletions:
        after, less = one.auc_after, one.difference
        if after.low > CHANCE:
            found = "the removed records can still be told from non-members"
        elif after.high < CHANCE:
            found = (
                "the removed records score below non-members, so they can be told from them all "
                "the same"
            )
        else:
            found = "the removed records score like non-members, as far as so many can show"
        yield (
            f"{one.target}, trained again without the members of {one.before}: {found} "
            f"({count(one.n_removed)} of them, {one.attack}: AUC {after.value:.3f} "
            f"{unit_interval(after)}). On {one.before}, where {one.attack} leads, it is "
            f"{one.auc_before.value:.3f}; on the same records that is {less.value:+.3f} "
            f"[{less.low:+.3f}, {less.high:+.3f}]"
        )
