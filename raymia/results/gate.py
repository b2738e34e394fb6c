"""The release gate: whether a model leaks more than its makers allow.

A condition says what must not be so: `spv@self_prompt.tpr@1%fpr > 0.05`. Its outcome on a
checkpoint is one of

- *failed*: the lower limit of some attack is over the number;
- *passed*: the upper limits of all attacks are within it;
- *undecided*: neither. More records would decide it;
- *not evaluated*: nothing was measured that could.

Lower limits are corrected for every attack on every checkpoint that the condition matches, so that
chance makes no checkpoint fail with more than 5 %. Upper limits are corrected for the checkpoints
alone: all attacks must be within the number, and the strongest is no easier to miss among many
(intersection-union; Berger, Technometrics 24, 1982).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from raymia.metrics.intervals import lower_limit, upper_limit
from raymia.metrics.summary import AttackMetrics, Metrics
from raymia.results import wording
from raymia.results.chance import Counted, counted_in, is_mean_of_all, share_copies, what_counts
from raymia.results.gate_figures import TOO_MANY, Figure, Levels, figure_of
from raymia.results.gate_result import GateOutcome, GateStatus
from raymia.results.result import RunResult
from raymia.results.telling import COPIES_NOT_MEASURED, MEANS_OF_ALL, units_called
from raymia.results.verdict import may_leak_strongly, reach_verdict, why_strength_is_unknown
from raymia.spec import AuditSpec
from raymia.spec.conditions import FINDINGS, Condition, check_conditions, parse_conditions
from raymia.util.errors import InputError
from raymia.util.listing import listed

ERROR_RATE = 0.05
"""Chance, at most, that a condition fails a checkpoint wrongly, and that it passes one wrongly."""
INCOMPLETE = "the run is incomplete: run it again to go on, and decide then"
EXPLAINED = (
    "members and non-members differ without any model, and a guess that sees none is not far "
    "weaker; see docs/shift.md"
)
SHARED_COPIES = (
    "records of some groups nearly copy records of others, and groups are measured without such "
    "copies only where whole groups were split; put what is alike into one group"
)
Undecided = Literal["fail", "pass"]
ON: dict[Counted, str] = {
    "records": "",
    "distinct": "on distinct records, ",
    "groups": "by group, ",
}
"""What is said before the figures."""


def evaluate(
    conditions: Iterable[Condition], result: RunResult, error_rate: float = ERROR_RATE
) -> list[GateOutcome]:
    """Decide each condition on each target that it is about.

    Parameters
    ----------
    error_rate : of each condition.
    """
    return [
        outcome for condition in conditions for outcome in _outcomes(condition, result, error_rate)
    ]


def decide_again(result: RunResult, texts: Sequence[str]) -> list[GateOutcome]:
    """Decide conditions on a stored run; without any, those that it was decided by before.

    Raises
    ------
    InputError
        For what is no condition, or is on what the run did not measure; and without a condition.
    """
    own = (outcome.condition for outcome in result.gate)
    conditions = parse_conditions([*dict.fromkeys(texts or own)])
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


def with_conditions(
    spec: AuditSpec, texts: Sequence[str], undecided: Undecided | None = None
) -> AuditSpec:
    """Add conditions of the command line to those of the audit file.

    Raises
    ------
    InputError
        For what is no condition.
    """
    parse_conditions(texts)
    given = {} if undecided is None else {"undecided": undecided}
    return spec.model_copy(
        update={"fail_if": list(dict.fromkeys([*spec.fail_if, *texts])), **given}
    )


def is_open(outcomes: Iterable[GateOutcome], undecided: Undecided = "fail") -> bool:
    """Whether nothing closes the gate."""
    opening = {"passed", "undecided"} if undecided == "pass" else {"passed"}
    return all(outcome.status in opening for outcome in outcomes)


def gate_line(result: RunResult) -> str:
    """The gate in one line: "gate: closed, 3 of 12 conditions failed, 1 undecided"."""
    state = "open" if is_open(result.gate, result.undecided) else "closed"
    total = len(result.gate)
    words: dict[GateStatus, str] = {
        "failed": "failed", "undecided": "undecided", "not_evaluated": "not evaluated",
        "passed": "passed",
    }  # fmt: skip
    counts = [(sum(o.status == status for o in result.gate), w) for status, w in words.items()]
    parts = [f"{number} of {total} {word}" for number, word in counts if number]
    lets = "; undecided conditions may pass" if result.undecided == "pass" else ""
    return f"gate: {state}, {', '.join(parts)}{lets}"


def _outcomes(condition: Condition, result: RunResult, error_rate: float) -> Iterator[GateOutcome]:
    if condition.metric in ("members", "non_members"):
        yield _on_counts(condition, result)
        return
    counted = _counted(condition, result)
    entries, on = counted_in(result, counted), ON[counted]
    failed = [target.name for target in result.failed]
    named = dict.fromkeys([*(entry.target for entry in result.metrics), *failed])
    targets = [name for name in named if fnmatchcase(name, condition.targets)]
    matched = {
        target: [
            entry
            for entry in entries
            if entry.target == target and fnmatchcase(entry.attack, condition.attacks)
        ]
        for target in targets or [condition.targets]
    }
    levels = Levels(
        error_rate / max(1, sum(len(found) for found in matched.values())),
        error_rate / max(1, len(targets)),
    )
    for target, found in matched.items():
        status, reason = _decide(condition, target, found, levels, result)
        if status != "not_evaluated":
            reason = f"{on}{reason}"
        yield GateOutcome(condition=condition.text, target=target, status=status, reason=reason)


def _counted(condition: Condition, result: RunResult) -> Counted:
    """What the figures are of that a condition compares."""
    if not condition.is_of_attacks:
        return "records"
    return "groups" if condition.by_group else what_counts(result)


def _why_not_counted(condition: Condition, result: RunResult) -> str | None:
    """Why what a condition compares was not measured, or not so that it can be compared, as in
    earlier runs."""
    counted = _counted(condition, result)
    if counted == "distinct" and not result.distinct_metrics:
        return COPIES_NOT_MEASURED
    if counted == "groups" and any(map(is_mean_of_all, result.group_metrics)):
        return MEANS_OF_ALL
    if counted == "groups" and not result.split_by_group and share_copies(result):
        return SHARED_COPIES
    return None


def _on_counts(condition: Condition, result: RunResult) -> GateOutcome:
    """Records without a score say nothing of a model, so of the checkpoint with the fewest counts
    the attack that scored most."""
    number = getattr(result.records, condition.metric)
    scored: dict[str, int] = {}
    for entry in result.metrics:
        most = max(scored.get(entry.target, 0), getattr(entry, f"n_{condition.metric}"))
        scored[entry.target] = most
    fewest = min(scored.values(), default=number)
    kind = condition.metric.removesuffix("s").replace("_", "-")
    what = f"there are {wording.number_of(number, kind)}"
    if fewest < number:
        where = min(scored, key=lambda target: scored[target])
        what = (
            f"{wording.number_of(fewest, kind)} of {wording.count(number)} have a score on {where}"
        )
    met = condition.is_met(fewest)
    reason = f"{what}, {'fewer than' if met else 'at least'} {condition.limit:,.0f}"
    status: GateStatus = "failed" if met else "passed"
    lacking = [f"target {one.name} failed: {one.reason}" for one in result.failed]
    lacking += [] if result.complete else [INCOMPLETE]
    if lacking and not met:
        status, reason = "not_evaluated", "; ".join(lacking)
    return GateOutcome(condition=condition.text, target="*", status=status, reason=reason)


def _decide(
    condition: Condition,
    target: str,
    found: Sequence[Metrics],
    levels: Levels,
    result: RunResult,
) -> tuple[GateStatus, str]:
    why_not = list(_why_nothing_counts(condition, target, found, result))
    if why_not:
        return "not_evaluated", "; ".join(why_not)
    if condition.metric == "verdict":
        return _on_verdict(condition, target, result)
    if condition.metric == "extraction":
        return _on_extraction(condition, target, result, levels.high)
    if condition.metric == "epsilon":
        levels = Levels(levels.high, levels.high)
    blind = explained_by_guesses(result)
    figures = [
        figure_of(condition, entry, levels)
        if (entry.target, entry.attack) not in blind
        else Figure("not_measured", entry.attack, EXPLAINED)
        for entry in found
    ]
    figures += [
        Figure("not_measured", one.attack, one.reason)
        for one in result.not_run
        if one.target == target and fnmatchcase(one.attack, condition.attacks)
    ]
    if condition.metric == "epsilon":
        figures = _chosen_bound(figures)
    over = [f for f in figures if f.low is not None and condition.is_met(f.low)]
    if over:
        worst = max(over, key=lambda figure: figure.low or 0.0)
        relation = "at least" if condition.or_equal else "above"
        more = _others(over, figures)
        return "failed", (
            f"{worst.text}: the lower limit{_corrected(levels)}, {worst.low:.3f}, is {relation} "
            f"{condition.limit:g}{more}"
        )
    lacking = [figure for figure in figures if figure.state == "not_measured"]
    if lacking:
        return "not_evaluated", "; ".join(_why_lacking(lacking))
    open_ = [f for f in figures if f.high is None or condition.is_met(f.high)]
    if open_:
        counted = _counted(condition, result)
        return "undecided", _undecided(condition, open_, figures, levels, counted)
    highest = max(figures, key=lambda figure: figure.high or 0.0)
    most = f", the highest of {len(figures)} attacks" if figures[1:] else ""
    relation = "below" if condition.or_equal else "not above"
    return "passed", (
        f"{highest.text}: the upper limit{most}, {highest.high:.3f}, is {relation} "
        f"{condition.limit:g}"
    )


def _why_lacking(figures: Sequence[Figure]) -> Iterator[str]:
    """Why there are no figures: each reason once, with the attacks that lack one for it."""
    attacks: dict[str, list[str]] = {}
    for figure in figures:
        attacks.setdefault(figure.words, []).append(figure.attack)
    return (f"{listed(names)}: {why}" for why, names in attacks.items())


def _chosen_bound(figures: Sequence[Figure]) -> list[Figure]:
    """Of bounds of epsilon the lower limit of the one that was chosen on other records counts; all
    upper limits do."""
    best = max(figures, key=lambda figure: figure.chosen_by, default=None)
    return [f if f is best or f.state != "measured" else f.without_low() for f in figures]


def explained_by_guesses(result: RunResult) -> set[tuple[str, str]]:
    """The attacks whose figures may be the records' and not the model's."""
    if result.shift is None or result.shift.level != "stop":
        return set()
    stronger = {(e.target, e.attack) for e in result.excess_over_blind if e.is_far_stronger}
    return {(entry.target, entry.attack) for entry in result.metrics} - stronger


def _corrected(levels: Levels) -> str:
    if levels.low >= ERROR_RATE:
        return ""
    return f" for {round(ERROR_RATE / levels.low)} comparisons"


def _others(such: Sequence[Figure], figures: Sequence[Figure]) -> str:
    """Count the attacks of which the same is to be said."""
    return f"; the same holds of {len(such) - 1} more of {len(figures)} attacks" if such[1:] else ""


def _undecided(
    condition: Condition,
    open_: Sequence[Figure],
    figures: Sequence[Figure],
    levels: Levels,
    counted: Counted,
) -> str:
    """Why it is neither, and how many records would decide it."""
    worst = max(open_, key=lambda figure: 2.0 if figure.high is None else figure.high)
    others = _others(open_, figures)
    if worst.state == "unlimited":
        return f"{worst.text}{others}"
    if worst.high is None:
        return f"{worst.text}: nothing that was measured gives it an upper limit{others}"
    if worst.low is None:
        return (
            f"{worst.text}: the upper limit, {worst.high:.3f}, is above {condition.limit:g}, and "
            f"{worst.why_no_low}{others}"
        )
    more = worst.records_needed(condition.limit, condition.max_fpr, levels)
    members, non_members = (units_called(what, counted) for what in ("member", "non-member"))
    needed = (
        f"more than {TOO_MANY:,} times as many records would be needed while the figure is so "
        "near the number"
        if more is None
        else f"about {wording.count(more)} {members} and as many {non_members} would decide it if "
        "the figure stays as it is"
    )
    return (
        f"{worst.text}: {condition.limit:g} lies between the lower limit and the upper one"
        f"{_corrected(levels)}{others}; {needed}"
    )


def _on_verdict(condition: Condition, target: str, result: RunResult) -> tuple[GateStatus, str]:
    found = {one.target: one.finding for one in reach_verdict(result).targets}.get(target)
    if found in FINDINGS:
        met = condition.is_met(float(FINDINGS.index(found)))
        worst = condition.is_met(float(len(FINDINGS) - 1))
        if worst and not met and target in may_leak_strongly(result):
            return "not_evaluated", (
                "the checkpoint leaks, and whether strongly is not known: "
                f"{why_strength_is_unknown(result)}"
            )
        return "failed" if met else "passed", f"the verdict is {found.replace('_', ' ')}"
    if found == "no_leak_found":
        return "passed", "no leak was found"
    return "not_evaluated", f"the verdict is {(found or 'none').replace('_', ' ')}"


def _on_extraction(
    condition: Condition, target: str, result: RunResult, error: float
) -> tuple[GateStatus, str]:
    """By limits of the share of members that hold for all checkpoints together."""
    found = {one.target: one for one in result.extractions}.get(target)
    if found is None:
        return "not_evaluated", "the checkpoint wrote no samples; run the attack `samia` on it"
    share = found.members
    if share is None:
        return "not_evaluated", f"no member that was sampled goes on for {found.words} words"
    if result.split_by_group:
        why = "groups were split, and extraction counts records, which are not independent"
        return "not_evaluated", why
    low = float(lower_limit(share.hits, share.of, 1.0 - error))
    high = float(upper_limit(share.hits, share.of, 1.0 - error))
    said = f"{wording.extraction(found)}; the share of members is between {low:.3f} and {high:.3f}"
    if condition.is_met(low):
        return "failed", said
    return ("undecided" if condition.is_met(high) else "passed"), said


def _why_nothing_counts(
    condition: Condition, target: str, found: Sequence[Metrics], result: RunResult
) -> Iterator[str]:
    """What makes every figure on a target worthless as a verdict."""
    failures = [failed.reason for failed in result.failed if failed.name == target]
    if failures:
        yield f"the target failed: {failures[0]}"
    elif not result.metrics:
        yield "nothing was measured: it takes members and non-members"
    elif condition.by_group and not result.group_metrics:
        yield "no group was measured: the run has none, or each mixes members and others"
    elif (why_not := _why_not_counted(condition, result)) is not None:
        yield why_not
    elif not found and condition.is_of_attacks:
        yield "the attack was not run on this target"
    if not result.complete:
        yield INCOMPLETE
