"""The first screen: the picture that proves the verdict, and four cards beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raymia.report.charts import Charts
from raymia.report.first_pictures import PLAIN_ATTACK, FirstPictures, first_pictures
from raymia.report.sections import TargetSection
from raymia.results import wording
from raymia.results.chance import Chance, Test
from raymia.results.curves import AttackCurves
from raymia.results.ranking import at_budget, estimate_at, held_out_area, held_out_rate
from raymia.results.result import RunResult
from raymia.results.telling import ON, counted_of, number_of_units, power_lines, units_called
from raymia.results.verdict_result import Finding

LEAKING: frozenset[Finding] = frozenset({"leaks", "leaks_strongly"})
USUAL_NON_MEMBERS = 100
"""Fewest with which a rate at 1 % false positives can be told."""


@dataclass(frozen=True)
class Card:
    """A question that every reader has, and what the audit says to it.

    Attributes
    ----------
    about : the checkpoint that it speaks of, where there are several.
    """

    question: str
    lines: list[str]
    about: str | None = None


@dataclass(frozen=True)
class FirstScreen:
    """What stands above everything else.

    Attributes
    ----------
    target : the checkpoint that is drawn: the most exposed.
    """

    target: str | None
    cards: list[Card]
    pictures: FirstPictures

    @property
    def roc(self) -> int | None:
        """Number of the chart; none where there is nothing to draw."""
        return self.pictures.roc

    @property
    def histogram(self) -> int | None:
        """Number of the chart; none where there is nothing to draw."""
        return self.pictures.histogram


def first_screen(
    result: RunResult,
    targets: Sequence[TargetSection],
    curves: Sequence[AttackCurves],
    charts: Charts,
) -> FirstScreen:
    """Lay out the first screen of a report.

    Parameters
    ----------
    targets : the most exposed first.
    """
    leading = [target for target in targets if target.leading is not None]
    exposed = leading[0] if leading else None
    about = exposed.name if exposed is not None and len(targets) > 1 else None
    cards = [
        Card("Who could be named?", list(_named(result, exposed)), about),
        Card("How sure is that?", list(_sure(result, exposed)), about),
        Card("Compared with what?", list(_compared(result, exposed)), about),
        Card("What to do next", list(_next(result, targets))),
    ]
    cards = [card for card in cards if card.lines]
    if exposed is None:
        return FirstScreen(None, cards, FirstPictures(None, None, None))
    return FirstScreen(exposed.name, cards, first_pictures(result, leading, curves, charts))


def _named(result: RunResult, exposed: TargetSection | None) -> Iterator[str]:
    attack = None if exposed is None else exposed.leading
    if exposed is None or attack is None:
        yield "Nothing was measured."
        return
    finding = exposed.finding
    if finding == "shift_suspected":
        yield "That cannot be told: members and non-members differ without any model."
        return
    chance = Chance.of(result)
    tests, counted = chance.tests(attack), counted_of(attack, chance)
    attack, members = chance.tested(attack), units_called("member", counted)
    at = None if exposed.ranking.fpr is None else at_budget(attack, exposed.ranking.fpr)
    rate = None if at is None else held_out_rate(attack, at.max_fpr)
    if at is None or rate is None:
        yield (
            f"How many {members} are named at few false accusations could not be measured on "
            f"{number_of_units(attack.n_members, 'member', counted)} and "
            f"{number_of_units(attack.n_non_members, 'non-member', counted)}."
        )
        return
    named = f"{attack.attack} names {wording.percent(rate.value)} of the {members}"
    if at.held_out is None:
        yield f"{named} at {wording.budget(at.max_fpr)} false accusations."
    else:
        tpr, fpr = at.held_out.tpr, at.held_out.fpr
        yield (
            f"{named}: {wording.count(tpr.hits)} of {wording.count(tpr.of)}, on records that did "
            "not choose its threshold."
        )
        yield (
            f"It wrongly accuses {wording.count(fpr.hits)} of "
            f"{number_of_units(fpr.of, 'non-member', counted)}."
        )
    of_rate = [test for test in tests if test.of == "rate" and test.max_fpr == at.max_fpr]
    if not of_rate:
        yield "Whether that is more than chance explains could not be tested."
    elif not of_rate[0].shows:
        yield "That is no more than chance explains."


def _sure(result: RunResult, exposed: TargetSection | None) -> Iterator[str]:
    attack = None if exposed is None else exposed.leading
    if exposed is None or attack is None or exposed.finding == "shift_suspected":
        return
    level = wording.budget(attack.confidence)
    chance = Chance.of(result)
    tested = chance.tested(attack)
    rate = held_out_rate(tested, exposed.ranking.fpr)
    if rate is not None:
        yield (
            f"That share is between {wording.percent(rate.low)} and {wording.percent(rate.high)} "
            f"({level} interval)."
        )
    area = held_out_area(tested)
    yield (
        f"The AUC{ON[counted_of(attack, chance)]} is {area.value:.3f} "
        f"{wording.unit_interval(area)}; guessing has 0.5."
    )
    if exposed.finding in LEAKING:
        shown = chance.shown(attack, exposed.ranking.fpr)
        if shown:
            yield (
                f"The chance that guessing reaches {_reached(shown[0])} is "
                f"{wording.chance(shown[0].p_value)}. The limit was "
                f"{wording.chance(shown[0].error)}, because "
                f"{_tried(chance)} tried."
            )
    elif exposed.finding == "no_leak_found":
        yield from power_lines(chance, exposed.ranking.fpr)


def _reached(test: Test) -> str:
    if test.max_fpr is not None:
        return f"such a rate at {wording.budget(test.max_fpr)} false accusations"
    return "such an AUC" if test.of == "area" else "as many members above all non-members"


def _tried(chance: Chance) -> str:
    if chance.tried == 1:
        return "one attack was"
    return f"{wording.count(chance.tried)} attacks, over all checkpoints, were"


def _compared(result: RunResult, exposed: TargetSection | None) -> Iterator[str]:
    attack = None if exposed is None else exposed.leading
    if exposed is None or attack is None:
        return
    fpr = exposed.ranking.fpr
    guessing = "an AUC of 0.5" if fpr is None else f"{wording.budget(fpr)} of the members"
    yield f"Guessing: {guessing}."
    plain = next((a for a in exposed.ranking.measured if a.attack == PLAIN_ATTACK), None)
    if plain is not None and plain is not attack:
        plain = Chance.of(result).tested(plain)
        rate = None if fpr is None else estimate_at(plain, fpr)
        of = f"an AUC of {plain.auc.value:.3f}"
        if rate is not None:
            of = f"{wording.percent(rate.value)} {wording.rate_interval(rate)}"
        yield f"The loss alone, which needs no reference: {of}."
    guesser = None if result.shift is None else result.shift.strongest
    if guesser is not None:
        yield (
            f"The best guess that sees no model: an AUC of {guesser.auc.value:.3f} "
            f"{wording.unit_interval(guesser.auc)} ({guesser.title})."
        )
    else:
        yield "Whether members and non-members differ without a model was not checked."


def _next(result: RunResult, targets: Sequence[TargetSection]) -> Iterator[str]:
    if not result.complete:
        yield "Run the same audit again. Only what is missing is asked."
    elif result.failed:
        yield (
            f"See why {wording.joined([one.name for one in result.failed[:3]])}"
            f"{_and_others(result.failed[3:])} failed, mend that, and audit again. Errors are "
            "answers, which are stored and not asked again."
        )
    findings = {target.finding for target in targets}
    if findings & LEAKING:
        if result.text_examples or result.image_examples:
            yield "Look at the most exposed records below: are any of them sensitive or repeated?"
        clear = [target.name for target in targets if target.finding == "no_leak_found"]
        if clear:
            yield f"No leak was found in {wording.joined(clear[:3])}{_and_others(clear[3:])}."
        yield (
            "To leak less: fewer epochs, repeated records removed, or training with differential "
            "privacy. Then audit the new checkpoint."
        )
    elif "shift_suspected" in findings:
        yield (
            "Take non-members from where the members came from, split at random. If they were, "
            "write `records: {split: randomized}`. See docs/shift.md."
        )
    elif "no_leak_found" in findings:
        if not result.references:
            yield "Add a reference. The strongest attacks compare the target with another model."
        yield "Add records, if a leak that is not ruled out would matter."
    elif result.records.non_members < USUAL_NON_MEMBERS:
        yield f"Give at least {USUAL_NON_MEMBERS} non-members, for rates at 1 % false accusations."


def _and_others(left: Sequence[object]) -> str:
    return f" and {wording.number_of(len(left), 'other checkpoint')}" if left else ""
