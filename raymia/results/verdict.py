"""From the numbers of a run to a verdict: one rule for the report, the terminal and metrics.json.

A checkpoint leaks if a single attack, no combination, tells members from non-members by more than
chance explains, and leaks strongly if the lower limit of such an attack's interval is high as well.
An AUC below 0.5 tells as much as one above: the attack's sign may be wrong for the model, but what
it reads is there. What chance explains is computed from the counts, and corrected for every attack
on every checkpoint that was tried, so that an audit of many does not find a leak by trying often
enough. Where guessers that never saw a model tell members from non-members, no number is a leak's,
and the verdict is that instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from raymia.metrics.summary import AttackMetrics, Estimate
from raymia.results import wording
from raymia.results.chance import ERROR_RATE, Chance, units_of
from raymia.results.ranking import TargetRanking, at_budget, estimate_at, few_allowed, leading, rank
from raymia.results.result import RunResult
from raymia.results.verdict_result import Finding, TargetVerdict, Verdict
from raymia.shift.result import ExcessOverBlind

STRONG_LIFT = 10
STRONG_FPR = 0.01
STRONG_AUC = 0.8
"""A leak is strong if the lower limit of the true positive rate at 1 % false positives or less is
ten times what guessing reaches, or that of the AUC is 0.8."""
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
    by_rate : whether the true positive rate shows the leak, rather than the AUC alone.
    """

    target: str
    finding: Finding
    attack: AttackMetrics | None = None
    fpr: float | None = None
    by_rate: bool = False

    @property
    def rate(self) -> Estimate | None:
        """The true positive rate that is judged; none where no budget can be resolved."""
        if self.attack is None or self.fpr is None:
            return None
        return estimate_at(self.attack, self.fpr)


def reach_verdict(result: RunResult) -> Verdict:
    """Say what a run comes to.

    Parameters
    ----------
    result : RunResult
        Its own verdict, where it has one already, is not looked at.
    """
    rankings = rank(result.metrics)
    chance = Chance.of(result)
    cases = [_case(ranking, chance) for ranking in rankings]
    if result.shift is not None and result.shift.state == "shift":
        cases = [
            case if case.attack is None else replace(case, finding="shift_suspected")
            for case in cases
        ]
    finding = _overall(result, cases)
    return Verdict(
        finding=finding,
        sentence=_sentence(result, finding, cases),
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


def _case(ranking: TargetRanking, chance: Chance) -> _Case:
    """Judge one checkpoint by the attack that shows most: a strong one first, and by rate before by
    AUC."""
    if not ranking.measured:
        return _Case(ranking.target, "not_measurable")
    single = [a for a in ranking.measured if a.attack not in chance.combined] or ranking.measured
    by_rate = [a for a in single if chance.rate_shows(a, ranking.fpr)]
    by_area = sorted((a for a in single if chance.area_shows(a)), key=_area, reverse=True)
    shown = [*by_rate, *by_area]
    if not shown:
        leader = leading(ranking, chance.combined)
        return _Case(ranking.target, "no_leak_found", leader, ranking.fpr)
    strong = [a for a in shown if _is_strong(a, ranking.fpr)]
    best = (strong or shown)[0]
    return _Case(
        ranking.target,
        "leaks_strongly" if strong else "leaks",
        best,
        ranking.fpr,
        by_rate=any(attack is best for attack in by_rate),
    )


def _area(attack: AttackMetrics) -> tuple[bool, float]:
    """A key: the higher the AUC the stronger, then, below 0.5, the lower."""
    return attack.auc.value >= 0.5, abs(attack.auc.value - 0.5)


def _is_strong(attack: AttackMetrics, fpr: float | None) -> bool:
    if attack.auc.low >= STRONG_AUC:
        return True
    at = None if fpr is None or fpr > STRONG_FPR else at_budget(attack, fpr)
    if at is None or at.estimate is None:
        return False
    if at.held_out is None:
        return at.estimate.low >= STRONG_LIFT * at.max_fpr
    # On other records a threshold's false positive rate may come out above its budget.
    accused = max(at.max_fpr, at.held_out.fpr.value)
    return at.held_out.tpr.low >= STRONG_LIFT * accused


def _overall(result: RunResult, cases: Sequence[_Case]) -> Finding:
    if not result.complete:
        return "incomplete"
    return max((case.finding for case in cases), key=SEVERITY.index, default="not_measurable")


def _sentence(result: RunResult, finding: Finding, cases: Sequence[_Case]) -> str:
    if finding == "incomplete":
        why = "some answers are missing"
        if result.failed:
            why = f"{wording.number_of(len(result.failed), 'checkpoint')} failed"
        so_far = max((case.finding for case in cases), key=SEVERITY.index, default=None)
        rest = "" if so_far is None else f" So far: {_sentence(result, so_far, cases)}"
        return f"The audit is not finished: {why}.{rest}"
    if finding == "not_measurable":
        return (
            f"Nothing could be measured on {wording.audited(result.records)}; the scores are kept."
            + wording.read_first(result)
        )
    if finding == "shift_suspected":
        return _shift_sentence(result)
    if finding == "no_leak_found":
        units = units_of(result)
        missed = [
            max(m.auc.high, unit.auc.high if unit else 1.0)
            for m in result.metrics
            if isinstance(m, AttackMetrics)
            for unit in [units.get((m.target, m.attack))]
        ]
        highest = max(0.5, *missed)
        return (
            f"No leak was found{_among(cases)} with {wording.audited(result.records)}: no attack "
            f"did better than chance explains, and a leak up to an AUC of {highest:.2f} (0.5 is "
            "guessing) would have been missed."
        )
    leaking = [case for case in cases if case.finding == finding]
    worst = max(leaking, key=_strength)
    assert worst.attack is not None
    how = "strongly" if finding == "leaks_strongly" else ""
    subject = f"{worst.target} leaks{' ' + how if how else ''}"
    if len(cases) > 1:
        any_leak = sum(case.finding in ("leaks", "leaks_strongly") for case in cases)
        verb = "leaks" if any_leak == 1 else "leak"
        subject = f"{any_leak} of {len(cases)} checkpoints {verb}, {worst.target} most"
    return f"{subject}: {_what_it_does(worst, worst.attack)}."


def _among(cases: Sequence[_Case]) -> str:
    """Say in which checkpoints nothing was found: not in those that could not be measured."""
    measured = sum(case.attack is not None for case in cases)
    if measured == len(cases):
        return "" if measured == 1 else f" in any of {measured} checkpoints"
    which = "the only one" if measured == 1 else f"any of the {measured}"
    return f" in {which} of {len(cases)} checkpoints that could be measured"


def _shift_sentence(result: RunResult) -> str:
    guesser = None if result.shift is None else result.shift.strongest
    by = ""
    if guesser is not None:
        by = (
            f" by {guesser.title}, with an AUC of {guesser.auc.value:.2f} "
            f"{wording.unit_interval(guesser.auc, 2)}"
        )
    adding = [e for e in result.excess_over_blind if adds_to_blind(e)]
    more = "no attack adds to the AUC of the best such guess by more than chance explains"
    if adding:
        best = max(adding, key=lambda entry: entry.excess.value)
        more = (
            f"to the AUC of the best such guess {best.attack} on {best.target} still adds "
            f"{best.excess.value:.3f} {wording.unit_interval(best.excess)}"
        )
    return (
        f"Members and non-members can be told apart without any model{by}, so the attacks' "
        f"numbers do not measure leakage; {more}."
    )


def adds_to_blind(entry: ExcessOverBlind) -> bool:
    """Whether an attack tells more than a guesser that never saw a model, and not by chance."""
    return entry.excess.value > 0 and entry.corrected_p_value <= ERROR_RATE


def _what_it_does(case: _Case, attack: AttackMetrics) -> str:
    at = None if case.fpr is None else at_budget(attack, case.fpr)
    if case.by_rate and at is not None and at.estimate is not None:
        area = f"(AUC {attack.auc.value:.3f} {wording.unit_interval(attack.auc)})"
        if at.held_out is None:
            accusing = f"no more than {wording.budget(at.max_fpr)}"
            rate = at.estimate
        else:
            accusing = f"{wording.percent(at.held_out.fpr.value)}"
            rate = at.held_out.tpr
        return (
            f"{attack.attack} names {wording.percent(rate.value)} {wording.rate_interval(rate)} of "
            f"the members while wrongly accusing {accusing} of the non-members {area}"
        )
    if attack.auc.value < 0.5:
        turned = Estimate(
            value=1.0 - attack.auc.value, low=1.0 - attack.auc.high, high=1.0 - attack.auc.low
        )
        return (
            f"{attack.attack} scores a member below a non-member in "
            f"{wording.percent(turned.value)} {wording.rate_interval(turned)} of pairs, where "
            "guessing does in 50 %: what it reads gives members away, though in the other direction"
        )
    pairs = f"{wording.percent(attack.auc.value)} {wording.rate_interval(attack.auc)}"
    return (
        f"{attack.attack} scores a member above a non-member in {pairs} of pairs, where guessing "
        "does in 50 %, though it names few members with confidence"
    )


def _strength(case: _Case) -> tuple[float, float]:
    assert case.attack is not None
    rate = case.rate
    return (-1.0 if rate is None or not case.by_rate else rate.value, case.attack.auc.value)


def _limits(
    result: RunResult,
    finding: Finding,
    cases: Sequence[_Case],
    rankings: Sequence[TargetRanking],
) -> list[str]:
    limits = []
    if finding == "shift_suspected":
        limits.append(
            "It does not show that nothing leaks. Take non-members from where the members came "
            "from, split at random, and audit again."
        )
    if finding == "no_leak_found":
        limits.append(
            "This is no proof of privacy: other attacks, more records or more knowledge of the "
            "training data may find what these attacks did not."
        )
    if finding in ("leaks", "leaks_strongly"):
        limits.append(
            "It is a statement about these records as a whole. It does not prove of any one record "
            "that the model was trained on it."
        )
        if result.shift is None or result.shift.state == "not_checked":
            limits.append(
                "Whether members and non-members differ in more than training was not checked; "
                "where they do, part of what attacks find is not the model's."
            )
    measured = any(case.attack is not None for case in cases)
    if measured and result.split_by_group:
        limits.append(
            "Members and non-members were split by groups, so what chance explains is reckoned by "
            "groups. Intervals take records for independent: where those of a group are alike they "
            "are too narrow, and those in the table of groups are the ones to read."
        )
    elif measured and result.group_metrics:
        limits.append(
            "Some groups hold members and non-members, or some records are in none, so what chance "
            "explains is reckoned by records: where those of a group are alike it explains more, "
            "and intervals are too narrow."
        )
    if measured and len(_tried(rankings)) > 1:
        limits.append(
            f"The leading attack is the best of {len(_tried(rankings))} on these very records, so "
            "its number is slightly flattered; what chance explains is corrected for that."
        )
    few = {few for ranking in rankings for few in few_allowed(ranking) if few[0] == ranking.fpr}
    limits += [wording.rests_on_few(*pair) for pair in sorted(few)[:1]]
    return limits


def _tried(rankings: Sequence[TargetRanking]) -> set[str]:
    return {attack.attack for ranking in rankings for attack in ranking.measured}
