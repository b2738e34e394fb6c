"""What is told of a leak, and of none: the sentences of the verdict that carry numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from raymia.metrics.summary import AttackMetrics, Estimate
from raymia.results import wording
from raymia.results.chance import (
    Chance,
    Counted,
    Test,
    is_mean_of_all,
    units_of,
    what_counts,
)
from raymia.results.power import power_of_auc, power_of_rate
from raymia.results.ranking import (
    TargetRanking,
    at_budget,
    estimate_at,
    fitted_on_labels,
    held_out_area,
)
from raymia.results.result import RunResult
from raymia.shift.result import CopiesWithin, ShiftCheck

GIVEN_AUCS, GIVEN_RATES = (0.55, 0.6), (0.02, 0.05, 0.1)
"""Leaks of which it is said how often an audit finds them."""
NAMED: dict[Counted, str] = {
    "records": "members",
    "distinct": "distinct members",
    "groups": "groups",
}
COPIES_NOT_MEASURED = (
    "some records nearly copy others, and an earlier version did not measure one of each alone: "
    "run the audit again, which asks for nothing that is stored"
)
"""Why numbers of a run from before distinct records were measured decide nothing."""
MEANS_OF_ALL = (
    "an earlier version scored a group by the mean of all its records, which scatters less the "
    "more there are: run the audit again, which asks for nothing that is stored"
)
"""Why numbers on groups of a run from before these were means of equally many decide nothing."""
_ONE: dict[Counted, str] = {
    "records": "{}",
    "distinct": "distinct {}",
    "groups": "group of {}s",
}
_ALL: dict[Counted, str] = {
    "records": "all records",
    "distinct": "all distinct records",
    "groups": "all groups",
}
ON: dict[Counted, str] = {
    "records": "",
    "distinct": " on distinct records",
    "groups": " on groups",
}
"""What one is called, what all are, and what is said behind a number of them."""
FEW_NAMED = 0.1
"""Where the upper limit of a rate is below it, an attack names few members."""


def untested(result: RunResult, rankings: Sequence[TargetRanking]) -> str:
    """Count what was measured on records and not on what chance dealt out."""
    units = units_of(result)
    measured = [(attack.target, attack.attack) for r in rankings for attack in r.measured]
    lacking = sum(place not in units for place in measured)
    if not lacking:
        return ""
    return (
        f" {wording.count(lacking)} of {wording.number_of(len(measured), 'attack')} could not be "
        f"tested, {_why_untested(result)}."
    )


def _why_untested(result: RunResult) -> str:
    """Why an attack that was measured was not so on what chance dealt out."""
    if result.split_by_group:
        if any(map(is_mean_of_all, result.group_metrics)):
            return f"because {MEANS_OF_ALL}"
        return "because groups with a score are too few"
    if result.distinct_metrics:
        return "because distinct records with a score are too few"
    return f"because {COPIES_NOT_MEASURED}"


def nothing_measured(result: RunResult) -> str:
    """Say of a run without a number that can be judged what it lacks."""
    on = wording.audited(result.records)
    if any(isinstance(entry, AttackMetrics) for entry in result.metrics):
        chance = Chance.of(result)
        unit = max(chance.units.values(), key=lambda u: u.n_members + u.n_non_members, default=None)
        if unit is None:
            return f"No attack could be tested on {on}, {_why_untested(result)}."
        counts = (
            f"{number_of_units(unit.n_members, 'member', chance.counted)} and "
            f"{number_of_units(unit.n_non_members, 'non-member', chance.counted)}"
        )
        return (
            f"No leak could have been found: with {counts} and "
            f"{wording.number_of(chance.tried, 'attack')}, chance explains whatever an attack does."
        )
    if wording.has_no_scores(result):
        return f"Nothing could be measured on {on}: no member and no non-member has a score."
    return f"Nothing could be measured on {on}; the scores are kept."


def not_ruled_out(result: RunResult, rankings: Sequence[TargetRanking]) -> str:
    """The largest of the upper limits: the strongest of the attacks is below it as surely as the
    limit of that one attack is above it. An AUC below 0.5 tells as much as one above."""
    units = [units_of(result).get((m.target, m.attack)) for r in rankings for m in r.measured]
    known = [unit for unit in units if unit is not None]
    highest = max((1.0 if unit is None else unit.auc.high for unit in units), default=1.0)
    lowest = min((unit.auc.low for unit in known if not _is_fitted(unit, result)), default=0.5)
    text = f"Not ruled out: an AUC of up to {_up(max(0.5, highest), 2):.2f}"
    if 1.0 - lowest > highest:
        text += f", or down to {1.0 - _up(1.0 - lowest, 2):.2f}"
    text += " (0.5 is guessing)"
    fprs = {ranking.fpr for ranking in rankings if ranking.measured}
    # At the largest of the budgets: not all are resolved everywhere.
    fpr = max((f for f in fprs if f is not None), default=None)
    rates = [None if unit is None or fpr is None else estimate_at(unit, fpr) for unit in units]
    if fpr is None or any(rate is None for rate in rates):
        return f"{text}; rates at few false positives could not be bounded."
    most = max(rate.high for rate in rates if rate is not None)
    named = NAMED[what_counts(result)]
    named_at_most = wording.percent(_up(most, 3))
    return f"{text} and {named_at_most} of the {named} named at {wording.budget(fpr)} FPR."


def _up(number: float, digits: int) -> float:
    """Rounded up, as an upper limit is."""
    scale = 10.0**digits
    return min(1.0, math.ceil(round(number * scale, 6)) / scale)


def what_it_does(
    attack: AttackMetrics, test: Test, fpr: float | None, counted: Counted = "records"
) -> str:
    """Say in one or two sentences what a leaking attack does, by the test that shows it.

    Parameters
    ----------
    attack : as it was tested: what chance explains and what is told are of the same records.
    fpr : the budget that attacks are ranked by.
    counted : what it was tested on.
    """
    area = _area_to_tell(attack)
    overall = f" AUC {area.value:.3f} {wording.unit_interval(area)}{ON[counted]}."
    if test.of == "rate" and test.max_fpr is not None:
        at = at_budget(attack, test.max_fpr)
        # A half may by bad luck show less than guessing does of what all records show.
        if (
            at is not None
            and at.held_out is not None
            and (at.held_out.tpr.value > at.held_out.fpr.value)
        ):
            named, accused = at.held_out.tpr, at.held_out.fpr
            return (
                f"{attack.attack} names {wording.count(named.hits)} of "
                f"{number_of_units(named.of, 'member', counted)} ({wording.percent(named.value)} "
                f"{wording.rate_interval(named)}) and wrongly accuses "
                f"{wording.count(accused.hits)} of "
                f"{number_of_units(accused.of, 'non-member', counted)}.{overall}"
            )
        if at is not None and at.estimate is not None:
            return (
                f"{attack.attack} names {wording.percent(at.estimate.value)} "
                f"{wording.rate_interval(at.estimate)} of the {units_called('member', counted)} on "
                f"{_ALL[counted]}, and wrongly accuses no more than "
                f"{wording.budget(at.max_fpr)} of the {units_called('non-member', counted)}."
                f"{overall}"
            )
    if test.of == "top" and attack.above_all is not None:
        return (
            f"{attack.attack} scores {wording.count(attack.above_all)} of "
            f"{number_of_units(attack.n_members, 'member', counted)} above every one of "
            f"{number_of_units(attack.n_non_members, 'non-member', counted)}. The chance that "
            f"guessing does so is {wording.chance(test.p_value)}.{overall}"
        )
    member, other = (f"a {_ONE[counted].format(what)}" for what in ("member", "non-member"))
    if attack.auc.value < 0.5:
        turned = Estimate(value=1.0 - area.value, low=1.0 - area.high, high=1.0 - area.low)
        return (
            f"{attack.attack} scores {member} below {other} in "
            f"{wording.percent(turned.value)} {wording.rate_interval(turned)} of pairs; guessing "
            "does in 50 %. What it reads gives members away, though in the other direction."
        )
    return (
        f"{attack.attack} scores {member} above {other} in {wording.percent(area.value)} "
        f"{wording.rate_interval(area)} of pairs; guessing does in 50 %. "
        f"{_how_many_it_names(attack, fpr, counted)}"
    )


def number_of_units(number: int, what: str, counted: Counted) -> str:
    """Count records, or groups of them: "3 members", "1 distinct member", "1 group of members"."""
    if counted == "groups":
        return f"{wording.number_of(number, 'group')} of {what}s"
    return wording.number_of(number, _ONE[counted].format(what))


def units_called(what: str, counted: Counted) -> str:
    """What several are called: "members", "distinct members", "groups of members"."""
    return f"groups of {what}s" if counted == "groups" else f"{_ONE[counted].format(what)}s"


def counted_of(attack: AttackMetrics, chance: Chance) -> Counted:
    """What an attack's numbers are of: those of records where it was not tested on what counts."""
    return chance.counted if chance.unit(attack) is not None else "records"


def negatives_called(counted: Counted) -> tuple[str, str]:
    """What one of those is called that may be accused wrongly, and several."""
    return _ONE[counted].format("non-member"), units_called("non-member", counted)


def _area_to_tell(attack: AttackMetrics) -> Estimate:
    """The AUC on the half that did not choose the attack; that on all records, where the two are
    on different sides of 0.5, since it is the one that was tested."""
    held_out = held_out_area(attack)
    same_side = (held_out.value - 0.5) * (attack.auc.value - 0.5) > 0
    return held_out if same_side else attack.auc


def _is_fitted(attack: AttackMetrics, result: RunResult) -> bool:
    return attack.attack in fitted_on_labels(result)


def _how_many_it_names(attack: AttackMetrics, fpr: float | None, counted: Counted) -> str:
    """What is known of a rate that no test called more than chance: not that it is low."""
    at = None if fpr is None else at_budget(attack, fpr)
    rate = None if at is None else at.estimate
    members = units_called("member", counted)
    if at is None or rate is None:
        return f"How many {members} it names with few false positives could not be tested."
    name = f"at {wording.budget(at.max_fpr)} FPR"
    named = f"{wording.percent(rate.value)} {wording.rate_interval(rate)}"
    if rate.high <= FEW_NAMED:
        return f"On {_ALL[counted]} it names few {members} {name}: {named}."
    return f"On {_ALL[counted]} it names {named} of {members} {name}."


def power_lines(chance: Chance, fpr: float | None) -> Iterator[str]:
    """How often given leaks would be found in an audit of as many records."""
    units = list(chance.units.values())
    if not units:
        return
    unit = max(units, key=lambda unit: min(chance.sizes(unit)))
    sizes = chance.sizes(unit)
    named = NAMED[chance.counted]
    parts = [
        f"an AUC of {auc:.2f} in {wording.percent(power_of_auc(auc, *sizes, chance.error / 2), 0)}"
        for auc in GIVEN_AUCS
    ]
    tail = [test for test in chance.tests(unit) if test.of == "rate" and test.max_fpr == fpr]
    parts += [
        f"{wording.percent(rate, 0)} of {named} named at {wording.budget(test.max_fpr)} FPR in "
        f"{wording.percent(power_of_rate(rate, test.max_fpr, *sizes, test.error), 0)}"
        for test in tail
        for rate in GIVEN_RATES
        if test.max_fpr is not None and rate > test.max_fpr
    ]
    yield f"How often an audit of this size finds a leak: {wording.joined(parts)}."


def on_copies(result: RunResult, check: ShiftCheck, copies: CopiesWithin) -> str:
    """Say of copies on one side what counts them once, and what does not."""
    tests, sets, rest, advice = (
        "the first of each cluster alone", "a cluster once", "intervals on all records",
        "Give them as groups (`group_column`).",
    )  # fmt: skip
    where = ""
    if result.split_by_group:
        across = copies.across_groups or 0
        where = f", {wording.count(across)} of them over several groups"
        tests, sets, rest, advice = (
            "a cluster in its first group alone", "groups that share copies once",
            "the table of groups and intervals on all records", "Put what is alike into one group.",
        )  # fmt: skip
    counted = f": the tests against chance count {tests}" * bool(result.distinct_metrics)
    searched = bool(result.dataset_inference and not check.n_not_searched)
    once = f", and dataset inference counts {sets}" * searched
    return (
        f"{wording.copies_line(copies)}{where}. They are no independent evidence{counted}{once}, "
        f"but {rest} are not corrected. {advice}"
    )
