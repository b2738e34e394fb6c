"""The two pictures of the first screen: of what the verdict counts, as far as it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymia.metrics.summary import AttackMetrics
from raymia.report.charts import Charts, first_histogram, leaders_chart
from raymia.report.sections import TargetSection
from raymia.results.chance import Chance, share_copies
from raymia.results.curves import AttackCurves
from raymia.results.ranking import of_groups_of
from raymia.results.result import RunResult
from raymia.results.telling import counted_of

PLAIN_ATTACK = "loss"
"""What the leading attack is compared with: it takes nothing but the model."""


@dataclass(frozen=True)
class FirstPictures:
    """What is drawn on the first screen.

    Attributes
    ----------
    roc, histogram : numbers of charts; none where there is nothing to draw.
    caption : what they are of, where the verdict does not count records.
    """

    roc: int | None
    histogram: int | None
    caption: str | None


def first_pictures(
    result: RunResult,
    leading: Sequence[TargetSection],
    curves: Sequence[AttackCurves],
    charts: Charts,
) -> FirstPictures:
    """Draw the leading attacks.

    Groups have curves of their own. Distinct records have none: they are drawn among all records,
    whose scores are on the same scale, with the threshold of the distinct ones.

    Parameters
    ----------
    leading : checkpoints with a leading attack, the most exposed first.
    """
    chance, drawn = Chance.of(result), {(entry.target, entry.attack) for entry in curves}

    def as_drawn(attack: AttackMetrics) -> AttackMetrics:
        groups = of_groups_of(attack.target)
        if counted_of(attack, chance) == "groups" and (groups, attack.attack) in drawn:
            return chance.tested(attack).model_copy(update={"target": groups})
        return attack

    leaders = _leaders(leading)
    first, fpr = leaders[0], leading[0].ranking.fpr
    counted, picture = counted_of(first, chance), as_drawn(first)
    tested: AttackMetrics | None = chance.tested(first)
    caption = None
    if counted == "distinct":
        caption = (
            "The pictures are of all records, copies among them. The verdict counts distinct "
            "records, and the threshold is theirs."
        )
    elif counted == "groups" and picture is not first and share_copies(result):
        # A threshold of means of fewer records would be on another scale.
        tested = None
        caption = (
            "The pictures are of groups of records, copies among them. The verdict counts groups "
            "without copies."
        )
    elif counted == "groups" and picture is not first:
        caption = "The pictures are of groups of records, which the verdict counts."
    elif counted == "groups":
        tested = None
        caption = "The pictures are of single records. The verdict counts groups of records."
    roc = charts.add(leaders_chart([as_drawn(leader) for leader in leaders], curves))
    histogram = charts.add(first_histogram(picture, tested, fpr, curves))
    return FirstPictures(roc, histogram, caption)


def _leaders(leading: Sequence[TargetSection]) -> list[AttackMetrics]:
    """The leading attack of each checkpoint; of a single one the plain attack beside it."""
    leaders = [target.leading for target in leading if target.leading is not None]
    if len(leading) == 1:
        measured = leading[0].ranking.measured
        leaders += [a for a in measured if a.attack == PLAIN_ATTACK and a is not leaders[0]]
    return leaders
