"""The release gate: whether a model leaks more than its makers allow.

A condition says what must not be so: `spv@self_prompt.tpr@1%fpr > 0.05`. What is compared is the
lower confidence limit, so a condition fails where the leak is shown, not where chance may have made
it. A condition that cannot be evaluated does not pass: a gate that opens because nothing could be
measured is no gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from raymia.metrics.roc import allowed_false_positives
from raymia.metrics.summary import AttackMetrics, Estimate, Metrics, NotMeasured
from raymia.results import wording
from raymia.results.gate_result import GateOutcome
from raymia.results.ranking import FEW_FALSE_POSITIVES, at_budget
from raymia.results.result import RunResult
from raymia.spec import AuditSpec
from raymia.spec.conditions import Condition, check_conditions, parse_conditions
from raymia.util.errors import InputError


@dataclass(frozen=True)
class _Finding:
    """What one attack says to a condition.

    Attributes
    ----------
    low, high : limits of the interval; high is None for a bound that has none.
    text : the figure in words; where there is none (low is None), why.
    """

    attack: str
    text: str
    low: float | None = None
    high: float | None = None


def evaluate(conditions: Iterable[Condition], result: RunResult) -> list[GateOutcome]:
    """Decide each condition on each target that it is about."""
    failed = [target.name for target in result.failed]
    targets = dict.fromkeys([*(entry.target for entry in result.metrics), *failed])
    return [
        _outcome(condition, target, result)
        for condition in conditions
        for target in [name for name in targets if fnmatchcase(name, condition.targets)]
        or [condition.targets]
    ]


def decide_again(result: RunResult, texts: Sequence[str]) -> list[GateOutcome]:
    """Decide conditions on a stored run; without any, those that it was decided by before.

    Raises
    ------
    InputError
        For what is no condition, or is on what the run did not measure; and without a condition.
    """
    conditions = parse_conditions(texts or dict.fromkeys(o.condition for o in result.gate))
    if not conditions:
        raise InputError(
            f"audit {result.name!r} has no conditions; give one: --fail-if 'any.tpr@1%fpr > 0.05'"
        )
    attacks: dict[str, list[str]] = {}
    for entry in result.metrics:
        attacks.setdefault(entry.target, []).append(entry.attack)
    every = list(dict.fromkeys(entry.attack for entry in result.metrics))
    attacks |= {target.name: every for target in result.failed}
    measured = (entry for entry in result.metrics if isinstance(entry, AttackMetrics))
    fprs = list(dict.fromkeys(tpr.max_fpr for entry in measured for tpr in entry.tpr))
    if fprs:
        check_conditions(conditions, attacks, fprs)
    return evaluate(conditions, result)


def with_conditions(spec: AuditSpec, texts: Sequence[str]) -> AuditSpec:
    """Add conditions of the command line to those of the audit file.

    Raises
    ------
    InputError
        For what is no condition.
    """
    parse_conditions(texts)
    return spec.model_copy(update={"fail_if": list(dict.fromkeys([*spec.fail_if, *texts]))})


def is_open(outcomes: Iterable[GateOutcome]) -> bool:
    """Whether every condition is passed."""
    return all(outcome.status == "passed" for outcome in outcomes)


def _outcome(condition: Condition, target: str, result: RunResult) -> GateOutcome:
    own = [entry for entry in result.metrics if entry.target == target]
    found = [_find(condition, e) for e in own if fnmatchcase(e.attack, condition.attacks)]
    status: Literal["passed", "failed", "not_evaluated"] = "not_evaluated"
    if why_not := list(_why_nothing_counts(target, found, result)):
        reason = "; ".join(why_not)
    elif over := [f for f in found if f.low is not None and condition.is_met(f.low)]:
        status, reason = "failed", _failure(condition, over, len(found))
    elif lacking := [f"{f.attack}: {f.text}" for f in found if f.low is None]:
        reason = "; ".join(lacking)
    else:
        status, reason = "passed", _pass(condition, found)
    return GateOutcome(condition=condition.text, target=target, status=status, reason=reason)


def _why_nothing_counts(target: str, found: Sequence[_Finding], result: RunResult) -> Iterator[str]:
    """What makes every figure on a target worthless as a verdict."""
    failures = [failed.reason for failed in result.failed if failed.name == target]
    if failures:
        yield f"the target failed: {failures[0]}"
    elif not result.metrics:
        yield "nothing was measured: it takes members and non-members"
    elif not found:
        yield "the attack was not run on this target"
    if not result.complete:
        yield "the run is incomplete: run it again to go on, and decide then"
    if result.shift is not None and result.shift.state == "shift":
        yield (
            "members and non-members differ without any model, so that no figure says what the "
            "model gives away; split one set of records at random"
        )


def _find(condition: Condition, entry: Metrics) -> _Finding:
    if isinstance(entry, NotMeasured):
        return _Finding(entry.attack, f"not measured, {entry.reason}")
    if condition.max_fpr is not None:
        return _find_rate(entry, condition.max_fpr)
    if condition.metric == "epsilon":
        return _find_epsilon(entry)
    if condition.metric == "auc":
        return _of_estimate(entry.attack, "AUC", entry.auc)
    if entry.balanced_accuracy is None:
        why = "no balanced accuracy: a half of the records lacks members or non-members"
        return _Finding(entry.attack, why)
    return _of_estimate(entry.attack, "balanced accuracy", entry.balanced_accuracy)


def _find_rate(entry: AttackMetrics, max_fpr: float) -> _Finding:
    """The rate on all records: a threshold chosen on one half may come to several times the budget
    on the other, and of many attacks the gate would fail by the one whose threshold did."""
    at = at_budget(entry, max_fpr)
    name = f"TPR at {wording.budget(max_fpr)} FPR"
    if at is None:
        return _Finding(entry.attack, f"{name} was not measured")
    if at.estimate is None:
        return _Finding(entry.attack, f"{name} is {wording.not_resolvable(at)}")
    allowed = allowed_false_positives(max_fpr, entry.n_non_members)
    few = f", which rests on {wording.number_of(allowed, 'non-member')}"
    return _of_estimate(
        entry.attack, name, at.estimate, few if allowed < FEW_FALSE_POSITIVES else ""
    )


def _find_epsilon(entry: AttackMetrics) -> _Finding:
    """The highest of the lower bounds; each holds with its own confidence."""
    if not entry.epsilon:
        return _Finding(entry.attack, "no bound on epsilon was measured")
    best = max(entry.epsilon, key=lambda bound: bound.value)
    text = f"epsilon is at least {best.value:.3f} ({best.method.replace('_', ' ')})"
    return _Finding(entry.attack, text, low=best.value)


def _of_estimate(attack: str, name: str, estimate: Estimate, more: str = "") -> _Finding:
    text = f"{name} {estimate.value:.3f} {wording.unit_interval(estimate)}{more}"
    return _Finding(attack, text, low=estimate.low, high=estimate.high)


def _failure(condition: Condition, over: Sequence[_Finding], n_attacks: int) -> str:
    worst = max(over, key=_low)
    relation = "at least" if condition.or_equal else "above"
    others = f"; so is that of {len(over) - 1} more of {n_attacks} attacks" if over[1:] else ""
    return (
        f"{worst.attack}: {worst.text}: the lower limit is {relation} {condition.limit:g}{others}"
    )


def _pass(condition: Condition, found: Sequence[_Finding]) -> str:
    worst = max(found, key=_low)
    most = f", the highest of {len(found)} attacks," if found[1:] else ""
    relation = "below" if condition.or_equal else "not above"
    highest = max((f.high for f in found if f.high is not None), default=0.0)
    ruled_out = (
        f"; an upper limit is {highest:.3f}, so more than {condition.limit:g} is not ruled out"
        if highest > condition.limit
        else ""
    )
    return (
        f"{worst.attack}: {worst.text}: the lower limit{most} is {relation} "
        f"{condition.limit:g}{ruled_out}"
    )


def _low(finding: _Finding) -> float:
    return -1.0 if finding.low is None else finding.low
