"""From the numbers of a run to a verdict: one rule for the report, the terminal and metrics.json.

A checkpoint leaks if a single attack, no combination, tells members from non-members by more than
chance explains: by its AUC, by its rate at any budget, or by the members above all non-members. It
leaks strongly if the lower limit of such an attack is high as well, with the same correction. The
leading attack is chosen on one half of the records, and its numbers are from the other half. An AUC
below 0.5 tells as much as one above: the attack's sign may be wrong for the model, but what it
reads is there. What chance explains is computed from the counts, and corrected for every attack on
every checkpoint that was tried, so that an audit of many does not find a leak by trying often
enough. Where guessers that never saw a model tell members from non-members, no number is a leak's,
and the verdict is that instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from raymia.metrics.limits import at_error
from raymia.metrics.summary import AttackMetrics, LimitedEstimate
from raymia.results import wording
from raymia.results.chance import ERROR_RATE, Chance, Test, share_copies
from raymia.results.ranking import (
    TargetRanking,
    by_distinct,
    by_groups,
    exposure_across,
    few_allowed,
    leading,
    rank,
)
from raymia.results.result import RunResult
from raymia.results.telling import (
    negatives_called,
    not_ruled_out,
    nothing_measured,
    on_copies,
    power_lines,
    untested,
    what_it_does,
)
from raymia.results.verdict_result import Finding, TargetVerdict, Verdict
from raymia.shift.result import ExcessOverBlind

STRONG_LIFT = 10
STRONG_FPR = 0.01
STRONG_AUC = 0.8
"""A leak is strong if the lower limit of an attack's true positive rate, at any budget of 1 % false
positives or less, is ten times what guessing reaches, or that of its AUC is 0.8."""
TITLES: dict[Finding, str] = {
    "incomplete": "Incomplete",
    "not_measurable": "Not measurable",
    "shift_suspected": "Shift suspected",
    "no_leak_found": "No leak found",
    "leaks": "Leaks",
    "leaks_strongly": "Leaks strongly",
}
SEVERITY: tuple[Finding, ...] = get_args(Finding)


@dataclass(frozen=True)
class _Case:
    """One checkpoint's leading attack, and what it shows.

    Attributes
    ----------
    fpr : the budget that attacks are ranked by.
    shown : what chance does not explain of the attack; the first is told.
    may_be_strong : whether the limits that would say so were not kept.
    """

    target: str
    finding: Finding
    attack: AttackMetrics | None = None
    fpr: float | None = None
    shown: tuple[Test, ...] = ()
    may_be_strong: bool = False


def reach_verdict(result: RunResult) -> Verdict:
    """Say what a run comes to.

    Parameters
    ----------
    result : RunResult
        Its own verdict, where it has one already, is not looked at.
    """
    rankings = rank(result.metrics)
    cases = _cases(result, rankings)
    finding = _overall(result, cases)
    return Verdict(
        finding=finding,
        sentence=_sentence(result, finding, cases, rankings),
        limits=list(_limits(result, finding, cases, rankings)),
        targets=[
            TargetVerdict(
                target=case.target,
                finding=case.finding,
                attack=None if case.attack is None else case.attack.attack,
            )
            for case in cases
        ],
    )


def verdict_of(result: RunResult) -> Verdict:
    """The verdict that a result carries; reached anew where it carries none."""
    return result.verdict or reach_verdict(result)


def may_leak_strongly(result: RunResult) -> set[str]:
    """The checkpoints that leak, and nobody can say whether they do so strongly: no limits were
    kept, or none for as many attacks as were tried."""
    return {case.target for case in _cases(result, rank(result.metrics)) if case.may_be_strong}


def why_strength_is_unknown(result: RunResult) -> str:
    """Why the limits that were kept do not say whether a leak is strong, and what to do."""
    chance = Chance.of(result)
    if any(unit.auc.limits is None for unit in chance.units.values()):
        return (
            "an earlier version of raymia made the audit and kept no limits that are corrected for "
            "the attacks that were tried; run it again, which asks no model for what the store "
            "still has"
        )
    return (
        "limits are not kept for as many attacks as were tried, "
        f"{wording.count(chance.tried)} over all checkpoints; name fewer, and where an earlier "
        "version made the audit, run it again first: limits are now kept for more"
    )


def _cases(result: RunResult, rankings: Sequence[TargetRanking]) -> list[_Case]:
    chance, measurable = Chance.of(result), _measurable(result)
    return [_case(ranking, chance, measurable) for ranking in rankings]


def _measurable(result: RunResult) -> set[tuple[str, str]] | None:
    """The attacks that a shift leaves something to measure; None for all of them."""
    if result.shift is None or result.shift.level != "stop":
        return None
    return {(e.target, e.attack) for e in result.excess_over_blind if e.is_far_stronger}


def _case(ranking: TargetRanking, chance: Chance, measurable: set[tuple[str, str]] | None) -> _Case:
    """Judge one checkpoint by the attack that shows most: a strong one first, and by the rate that
    attacks are ranked by before other parts of the tail, and those before the AUC."""
    if not ranking.measured:
        return _Case(ranking.target, "not_measurable")
    single = [a for a in ranking.measured if a.attack not in chance.combined] or ranking.measured
    found = [(a, shown) for a in single if (shown := tuple(chance.shown(a, ranking.fpr)))]
    if measurable is not None:
        found = [(a, shown) for a, shown in found if (a.target, a.attack) in measurable]
    if not found:
        none: Finding = "shift_suspected"
        if measurable is None:
            tested = any(chance.can_show(attack) for attack in single)
            none = "no_leak_found" if tested else "not_measurable"
        return _Case(ranking.target, none, leading(ranking, chance.combined), ranking.fpr)
    found.sort(key=lambda pair: _place(chance.tested(pair[0]), pair[1], ranking.fpr))
    are_strong = [_is_strong(attack, chance) for attack, _ in found]
    strong = [pair for pair, is_strong in zip(found, are_strong, strict=True) if is_strong]
    best, shown = (strong or found)[0]
    finding: Finding = "leaks_strongly" if strong else "leaks"
    unknown = not strong and None in are_strong
    return _Case(ranking.target, finding, best, ranking.fpr, shown, unknown)


def _place(
    attack: AttackMetrics, shown: Sequence[Test], fpr: float | None
) -> tuple[int, bool, float]:
    """A key of which the lowest is told first; those that it does not tell apart stay in the order
    of the ranking. Of those that show an AUC alone, the higher the stronger, then, below 0.5, the
    lower.

    Parameters
    ----------
    attack : as it was tested.
    """
    first = shown[0]
    if first.of != "area":
        return (0 if first.of == "rate" and first.max_fpr == fpr else 1, False, 0.0)
    area = attack.auc.value if attack.held_out_auc is None else attack.held_out_auc.calibration
    return 2, area < 0.5, -abs(area - 0.5)


def _is_strong(attack: AttackMetrics, chance: Chance) -> bool | None:
    """Of the error that an attack has, as every other that was tried, half is for its AUC, and its
    rates at the budgets of 1 % or less share the other half. One that was fitted on labels is not
    judged by its rates.

    Returns
    -------
    bool or None
        None where a limit that could say so was not kept at so small an error.
    """
    unit, half = chance.tested(attack), chance.error / 2
    rates = [
        (at.estimate, STRONG_LIFT * at.max_fpr)
        for at in unit.tpr
        if at.estimate is not None and at.max_fpr <= STRONG_FPR and unit.attack not in chance.fitted
    ]
    found = [_reaches(unit.auc, STRONG_AUC, half)]
    found += [_reaches(rate, least, half / len(rates)) for rate, least in rates]
    return True if any(found) else None if None in found else False


def _reaches(estimate: LimitedEstimate, least: float, error: float) -> bool | None:
    """Whether the one-sided lower limit does. It only falls as the error shrinks, so beyond the
    last step that was kept it is not known only where that step still reaches; in runs before
    limits were kept, where the interval's end does."""
    if estimate.limits is None:
        return None if estimate.low >= least else False
    kept = estimate.limits.low
    limit = at_error(kept, error)
    if limit is None:
        return None if kept[-1] >= least else False
    return limit >= least


def _overall(result: RunResult, cases: Sequence[_Case]) -> Finding:
    if not result.succeeded:
        return "incomplete"
    return max((case.finding for case in cases), key=SEVERITY.index, default="not_measurable")


def _sentence(
    result: RunResult, finding: Finding, cases: Sequence[_Case], rankings: Sequence[TargetRanking]
) -> str:
    if finding == "incomplete":
        why = "some answers are missing"
        if result.failed:
            why = f"{wording.number_of(len(result.failed), 'checkpoint')} failed"
        so_far = max((case.finding for case in cases), key=SEVERITY.index, default=None)
        rest = "" if so_far is None else f" So far: {_sentence(result, so_far, cases, rankings)}"
        return f"The audit is not finished: {why}.{rest}"
    if finding == "not_measurable":
        return f"{nothing_measured(result)}{wording.read_first(result)}"
    if finding == "shift_suspected":
        return _shift_sentence(result)
    if finding == "no_leak_found":
        combined = Chance.of(result).combined
        alone = " by itself" if any(m.attack in combined for m in result.metrics) else ""
        return (
            f"No leak was found{_among(cases)} with {wording.audited(result.records)}. No attack"
            f"{alone} did better than chance explains.{untested(result, rankings)} "
            f"{not_ruled_out(result, rankings)}"
        )
    exposure, chance = exposure_across(rankings), Chance.of(result)
    leaking = [(c, c.attack) for c in cases if c.finding == finding and c.attack is not None]
    worst, attack = max(leaking, key=lambda pair: exposure(chance.tested(pair[1])))
    how = "strongly" if finding == "leaks_strongly" else ""
    subject = f"{worst.target} leaks{' ' + how if how else ''}."
    if len(cases) > 1:
        any_leak = sum(case.finding in ("leaks", "leaks_strongly") for case in cases)
        unjudged = sum(case.finding in ("not_measurable", "shift_suspected") for case in cases)
        verb = "leaks" if any_leak == 1 else "leak"
        rest = f"; {wording.count(unjudged)} could not be judged" if unjudged else ""
        subject = f"{any_leak} of {len(cases)} checkpoints {verb}{rest}."
        subject += f" The worst is {worst.target}:"
    tested = chance.tested(attack)
    return f"{subject} {what_it_does(tested, worst.shown[0], worst.fpr, chance.counted)}"


def _among(cases: Sequence[_Case]) -> str:
    """Say in which checkpoints nothing was found: not in those that could not be measured."""
    measured = sum(case.finding != "not_measurable" for case in cases)
    if measured == len(cases):
        return "" if measured == 1 else f" in any of {measured} checkpoints"
    which = "the only one" if measured == 1 else f"any of the {measured}"
    return f" in {which} of {len(cases)} checkpoints that could be measured"


def _shift_sentence(result: RunResult) -> str:
    guesser = None if result.shift is None else result.shift.strongest
    by = ""
    if guesser is not None:
        by = (
            f": the best guess, by {guesser.title}, has an AUC of {guesser.auc.value:.2f} "
            f"{wording.unit_interval(guesser.auc, 2)}"
        )
    adding = [e for e in result.excess_over_blind if adds_to_blind(e)]
    more = "No attack was compared with that guess."
    if result.excess_over_blind:
        more = "No attack is stronger than that guess by more than chance explains."
    if adding:
        best = max(adding, key=lambda entry: entry.excess.value)
        more = (
            f"Beyond that guess, {best.attack} on {best.target} gains {best.excess.value:.3f} of "
            f"AUC {wording.unit_interval(best.excess)}."
        )
    return (
        f"Members and non-members differ without any model{by}. So the attacks' numbers do not "
        f"measure leakage. {more}"
    )


def adds_to_blind(entry: ExcessOverBlind) -> bool:
    """Whether an attack tells more than a guesser that never saw a model, and not by chance."""
    return entry.excess.value > 0 and entry.corrected_p_value <= ERROR_RATE


def _limits(
    result: RunResult,
    finding: Finding,
    cases: Sequence[_Case],
    rankings: Sequence[TargetRanking],
) -> list[str]:
    limits, chance = [], Chance.of(result)
    if finding == "shift_suspected":
        limits.append(
            "It does not show that nothing leaks. Take non-members from where the members came "
            "from, split at random, and audit again; if they were split at random, say so with "
            "`records: {split: randomized}`."
        )
    if finding == "no_leak_found":
        limits.append(
            "This is no proof of privacy: other attacks, more records or more knowledge of the "
            "training data may find what these attacks did not."
        )
        fprs = {ranking.fpr for ranking in rankings if ranking.measured}
        limits += power_lines(chance, fprs.pop() if len(fprs) == 1 else None)
    if finding in ("leaks", "leaks_strongly"):
        limits.append(
            "It is a statement about these records as a whole. It does not prove of any one record "
            "that the model was trained on it."
        )
        if result.shift is not None and result.shift.level == "stop":
            limits.append(
                "Members and non-members can be told apart without any model as well. The leading "
                "attack is far stronger than the best such guess, which explains less than half of "
                "it, but its numbers are too high by what it owes to that difference."
            )
        if result.shift is None or result.shift.state == "not_checked":
            limits.append(
                "Whether members and non-members differ in more than training was not checked; "
                "where they do, part of what attacks find is not the model's."
            )
        if any(case.may_be_strong for case in cases):
            limits.append(
                f"Whether the leak is strong is not known: {why_strength_is_unknown(result)}."
            )
        if all(chance.tested(m).auc.high < 0.5 for ranking in rankings for m in ranking.measured):
            limits.append(
                "Every attack scores members below non-members, as it would if the two files were "
                "swapped: check that `members` names the records that were trained on."
            )
    measured = any(case.attack is not None for case in cases)
    limits += _on_records(result, measured)
    if measured and result.split_by_group:
        tables, apart = (
            (by_distinct(result), "groups without copies")
            if share_copies(result)
            else (by_groups(result), "groups")
        )
        limits.append(
            "Members and non-members were split by groups, so the tests against chance count "
            "groups. Intervals on records take them for independent: where the records of a group "
            "are alike, they are too narrow"
            + (
                f", and those in the table of {apart} are the ones to read."
                if any(ranking.measured for ranking in tables)
                else "."
            )
        )
    elif measured and result.group_metrics:
        limits.append(
            "Some groups hold members and non-members, or some records are in none, so the tests "
            "against chance count records. Where the records of a group are alike, chance explains "
            "more than the tests say, and intervals are too narrow."
        )
    combined = chance.combined
    if measured and len(_tried(rankings, combined)) > 1:
        limits.append(_how_it_was_chosen(rankings, cases, combined))
    limits += _cautions(chance, rankings)
    return limits


def _cautions(chance: Chance, rankings: Sequence[TargetRanking]) -> list[str]:
    """Warn of the smallest budget that is told of where it allows few of those that were tested;
    of records where nothing was tested."""
    tested, told = rank(list(chance.units.values())), {r.target: r.fpr for r in rankings}
    negatives = negatives_called(chance.counted if tested else "records")
    few = {
        one
        for ranking in tested or rankings
        for one in few_allowed(ranking)
        if one[0] in (ranking.fpr, told.get(ranking.target))
    }
    return [wording.rests_on_few(*one, negatives) for one in sorted(few)[:1]]


def _on_records(result: RunResult, measured: bool) -> Iterator[str]:
    """What a reader must know of how records were split and copied."""
    check = result.shift
    if not measured:
        return
    if check is None or check.copies is None:
        yield (
            "Copies among members, and among non-members, were not looked for in this run. Where "
            "some records nearly copy others, chance explains more than the tests say. Run the "
            "audit again, which asks for nothing that is stored."
        )
    if check is None:
        return
    if check.split == "randomized":
        yield "The audit file states that members and non-members were split at random."
    if check.level == "note":
        yield wording.shift_note(check)
    copies = check.copies
    if copies is not None and (share_copies(result) if result.split_by_group else copies.groups):
        yield on_copies(result, check, copies)
        if check.n_not_searched and result.distinct_metrics:
            yield (
                f"Only a sample of {check.n_searched:,} members and non-members was searched for "
                "copies. Of a side with copies in it, the tests against chance count no other "
                "records. docs/shift.md says how more of them count."
            )


def _how_it_was_chosen(
    rankings: Sequence[TargetRanking], cases: Sequence[_Case], combined: Collection[str]
) -> str:
    tried = f"the best of {len(_tried(rankings, combined))}"
    every = [attack for ranking in rankings for attack in ranking.measured]
    if all(attack.held_out_auc is not None for attack in every):
        corrected = "What chance explains is corrected for every attack that was tried."
        firsts = {r.target: leading(r, combined) for r in rankings if r.measured}
        if any(c.attack is not None and c.attack is not firsts[c.target] for c in cases):
            return (
                "The attacks are ranked on one half of the records. Where the first of them shows "
                "no leak, or a weaker one than another, the other leads. That choice saw all "
                f"records, so its numbers may be a little too high. {corrected}"
            )
        return (
            f"The leading attack is {tried} on one half of the records. So that the choice does "
            "not flatter its numbers, they are those of the other half, unless they are said to be "
            f"of all records. {corrected}"
        )
    return (
        f"The leading attack is {tried} on these very records, so its number is flattered; what "
        "chance explains is corrected for that."
    )


def _tried(rankings: Sequence[TargetRanking], combined: Collection[str]) -> set[str]:
    """The attacks that may lead: combinations of others do not, where there are others."""
    every = {attack.attack for ranking in rankings for attack in ranking.measured}
    return every - {*combined} or every
