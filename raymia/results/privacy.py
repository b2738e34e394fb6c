"""What trainings claim to keep of each record, beside what the audit shows that they gave away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raymia.metrics.summary import AttackMetrics
from raymia.results.gate import ERROR_RATE, evaluate
from raymia.results.gate_result import GateStatus, PrivacyClaim
from raymia.results.result import RunResult
from raymia.spec import AuditSpec, TargetSpec
from raymia.spec.conditions import Condition

SAID: dict[GateStatus, str] = {
    "passed": "nothing speaks against it",
    "undecided": "the records neither refute it nor reach it",
    "not_evaluated": "it could not be tried",
    "failed": "it is broken",
}


def claims_of(spec: AuditSpec, result: RunResult) -> list[PrivacyClaim]:
    """Hold each target's claim against the bounds of its epsilon.

    A claim counts as refuted where the lower limit of a bound is above it. All claims together are
    refuted wrongly with a chance of 5 % at most.
    """
    claimed = {
        target.name: target.claim
        for target in spec.targets
        if isinstance(target, TargetSpec) and target.claim is not None
    }
    found = []
    for name, claim in claimed.items():
        condition = Condition(
            text=f"{name}:any.epsilon > {claim.epsilon:g}",
            targets=name,
            attacks="*",
            metric="epsilon",
            max_fpr=None,
            or_equal=False,
            limit=claim.epsilon,
        )
        (outcome,) = evaluate([condition], result, ERROR_RATE / len(claimed))
        status, reason = outcome.status, outcome.reason
        if result.split_by_group and status != "not_evaluated":
            status, reason = (
                "not_evaluated",
                "it is of single records, and members were split from non-members by groups, of "
                "which several records may be told at once",
            )
        smallest = min(_deltas(result, name), default=claim.delta)
        if smallest < claim.delta and status != "not_evaluated":
            status, reason = (
                "not_evaluated",
                (
                    f"the bounds of epsilon are for a delta of {smallest:g}, which is smaller; "
                    f"write `metrics: {{delta: {claim.delta:g}}}` and audit again"
                ),
            )
        found.append(
            PrivacyClaim(
                target=name,
                epsilon=claim.epsilon,
                delta=claim.delta,
                status=status,
                reason=reason,
            )
        )
    return found


def _deltas(result: RunResult, target: str) -> Iterator[float]:
    """The deltas that a target's bounds are for: one of a smaller delta than a claim's is no bound
    of what is claimed."""
    for entry in result.metrics:
        if isinstance(entry, AttackMetrics) and entry.target == target:
            yield from (bound.delta for bound in entry.epsilon)


def broken(claims: Iterable[PrivacyClaim]) -> list[str]:
    """What the report says before all else: trainings that do not keep what they claim."""
    return [
        f"The training of {one.target} is broken: it claims an epsilon of {one.epsilon:.3g} at a "
        f"delta of {one.delta:g}, and {one.reason}."
        for one in claims
        if one.status == "failed"
    ]


def claim_lines(claims: Iterable[PrivacyClaim]) -> list[str]:
    """Each claim beside the bound of its epsilon, for a person to read."""
    return [
        f"{one.target} claims an epsilon of {one.epsilon:.3g} at a delta of {one.delta:g} for each "
        f"record; {SAID[one.status]}: {one.reason}"
        for one in claims
        if one.status != "failed"
    ]
