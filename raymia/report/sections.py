"""The sections of the page: what is said of each checkpoint, in the order of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raymia.metrics.summary import AttackMetrics, CandidateClaims, Comparison
from raymia.report.charts import (
    MANY_TARGETS,
    Charts,
    histogram_chart,
    leaders_chart,
    loss_chart,
    roc_chart,
    steps_chart,
)
from raymia.report.series import Series, find_series
from raymia.results.bounds import ShownBound, shown_bounds
from raymia.results.chance import Chance
from raymia.results.curves import AttackCurves
from raymia.results.ranking import TargetRanking, exposure_across, labels_where, rank
from raymia.results.result import RunResult, TargetLoss
from raymia.results.telling import ON, counted_of
from raymia.results.verdict import SEVERITY
from raymia.results.verdict_result import Finding, Verdict
from raymia.shift.result import ExcessOverBlind

HISTOGRAMS = 3
"""Leading attacks whose scores are drawn, where one checkpoint is audited; of many, one of each."""
MAX_CLAIMS = 100


@dataclass(frozen=True)
class TargetSection:
    """What the page says of one checkpoint.

    Attributes
    ----------
    anchor : its place in the page.
    leading : the attack that the verdict rests on; None where nothing was measured.
    excess, queries : by attack; empty where there are none.
    bounds : lower bounds of epsilon.
    bounds_on : what they are on, where it is not all records.
    roc, histograms : numbers of charts.
    """

    name: str
    ranking: TargetRanking
    anchor: str = ""
    finding: Finding = "not_measurable"
    leading: AttackMetrics | None = None
    comparisons: list[Comparison] = field(default_factory=list)
    excess: Mapping[str, ExcessOverBlind] = field(default_factory=dict)
    queries: Mapping[str, int] = field(default_factory=dict)
    loss: TargetLoss | None = None
    bounds: list[ShownBound] = field(default_factory=list)
    bounds_on: str = ""
    roc: int | None = None
    histograms: list[int] = field(default_factory=list)

    @property
    def rank_of_finding(self) -> int:
        """For sorting: the worst finding is the highest."""
        return SEVERITY.index(self.finding)


@dataclass(frozen=True)
class SeriesSection:
    """A series of checkpoints and its charts, by number."""

    name: str
    points: list[str]
    over_steps: int
    against_loss: int | None


def target_sections(
    result: RunResult, verdict: Verdict, curves: Sequence[AttackCurves], charts: Charts
) -> list[TargetSection]:
    """One section for each checkpoint, the most exposed first: by what was found, then as
    :func:`raymia.results.ranking.exposure_across` says."""
    rankings = rank(result.metrics)
    judged = {entry.target: entry for entry in verdict.targets}
    queries = {cost.attack: cost.of_target + cost.of_others for cost in result.costs}
    losses = {loss.target: loss for loss in result.losses}
    combined = labels_where(result, lambda card: card.combines)
    many = len(rankings) > MANY_TARGETS
    drawn = {(entry.target, entry.attack): entry for entry in curves}
    leaders = {
        ranking.target: next(
            (m for m in ranking.measured if m.attack == judged[ranking.target].attack), None
        )
        for ranking in rankings
    }
    exposure, chance = exposure_across(rankings), Chance.of(result)

    def order(ranking: TargetRanking) -> tuple[int, tuple[float, float]]:
        leader = leaders[ranking.target]
        return (
            SEVERITY.index(judged[ranking.target].finding),
            (-1.0, -1.0) if leader is None else exposure(chance.tested(leader)),
        )

    sections = []
    for number, ranking in enumerate(sorted(rankings, key=order, reverse=True)):
        name = ranking.target
        leader = leaders[name]
        own = [entry for entry in curves if entry.target == name]
        # The leading attack first, then the others as they rank, combinations last.
        first = [leader] if leader is not None else []
        rest = [m for m in ranking.measured if m.attack not in combined and m is not leader]
        shown = [*first, *rest][: 1 if len(rankings) > 1 else HISTOGRAMS]
        histograms = [
            charts.add(histogram_chart(drawn[name, m.attack]))
            for m in shown
            if (name, m.attack) in drawn
        ]
        sections.append(
            TargetSection(
                name=name,
                ranking=ranking,
                anchor=f"checkpoint-{number}",
                finding=judged[name].finding,
                leading=leader,
                comparisons=[pair for pair in result.comparisons if pair.target == name],
                excess={e.attack: e for e in result.excess_over_blind if e.target == name},
                queries=queries,
                loss=losses.get(name),
                bounds=[] if leader is None else shown_bounds(result, leader),
                bounds_on="" if leader is None else ON[counted_of(leader, chance)],
                roc=charts.add(roc_chart(ranking, own, leader, many=many)),
                histograms=[number for number in histograms if number is not None],
            )
        )
    return sections


def unit_sections(
    rankings: Sequence[TargetRanking], curves: Sequence[AttackCurves], charts: Charts
) -> list[TargetSection]:
    """Sections of distinct records or of groups: numbers, and of a single checkpoint the curves,
    where they were kept."""
    alone = len(rankings) == 1
    sections = []
    for ranking in rankings:
        own = [entry for entry in curves if entry.target == ranking.target]
        leader = next(iter(ranking.measured), None)
        drawn = roc_chart(ranking, own, leader, many=False) if alone else None
        sections.append(TargetSection(ranking.target, ranking, roc=charts.add(drawn)))
    return sections


def groups_overlaid(
    rankings: Sequence[TargetRanking], curves: Sequence[AttackCurves], charts: Charts
) -> int | None:
    """The groups of several checkpoints on one ROC, each by the attack that leads on them, the most
    exposed first; None where there is one checkpoint or nothing to draw."""
    measured = [ranking for ranking in rankings if ranking.measured]
    if len(rankings) == 1:
        return None
    leaders = [r.measured[0].model_copy(update={"target": r.target}) for r in measured]
    leaders.sort(key=exposure_across(measured), reverse=True)
    return charts.add(leaders_chart(leaders, curves))


def resolved(*rankings: TargetRanking) -> list[float]:
    """The budgets of false positives that some attack resolves, the largest first."""
    return sorted(
        {
            tpr.max_fpr
            for ranking in rankings
            for attack in ranking.measured
            for tpr in attack.tpr
            if tpr.estimate is not None
        },
        reverse=True,
    )


def first_measured(targets: Sequence[TargetSection]) -> TargetSection | None:
    """The first checkpoint that was measured."""
    return next((target for target in targets if target.ranking.measured), None)


def drawn_series(
    result: RunResult, targets: Sequence[TargetSection], charts: Charts
) -> list[SeriesSection]:
    """The series among the checkpoints, drawn."""
    leaders = {target.name: target.leading for target in targets}
    found = find_series([target.ranking for target in targets], leaders, result.losses)
    return [_drawn(series, charts) for series in found if series.lines]


def _drawn(series: Series, charts: Charts) -> SeriesSection:
    over_steps = charts.add(steps_chart(series))
    assert over_steps is not None
    return SeriesSection(series.name, series.targets, over_steps, charts.add(loss_chart(series)))


def shown_claims(result: RunResult, targets: Sequence[TargetSection]) -> list[CandidateClaims]:
    """What can be claimed: of many checkpoints, by the attack that leads on each."""
    if len(result.claims) <= MAX_CLAIMS:
        return result.claims
    leading = {(t.name, t.leading.attack) for t in targets if t.leading is not None}
    of_leading = [entry for entry in result.claims if (entry.target, entry.attack) in leading]
    order = {target.name: place for place, target in enumerate(targets)}
    of_leading.sort(key=lambda entry: order[entry.target])
    return (of_leading or result.claims)[:MAX_CLAIMS]


def contents(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that this page has: anchor and heading."""
    run, targets = context["run"], context["targets"]
    one = len(targets) == 1
    records = "The most exposed records" if context["texts"] else "Pictures"
    there = (
        ("series", "Over training", bool(context["series"])),
        ("attacks", "Attacks" if one else "Checkpoints", bool(targets)),
        ("distinct", "Distinct records", bool(context["by_distinct"])),
        ("groups", "Groups", bool(context["by_groups"])),
        ("extraction", "Extraction", bool(run.extractions)),
        ("sets", "Whole sets", bool(run.dataset_inference)),
        ("shift", "Comparability", True),
        ("cost", "Strength against cost", context["cost_chart"] is not None),
        ("records", records, bool(context["texts"] or context["pictures"])),
        ("distributions", "Scores", one and bool(targets[0].histograms)),
        ("quality", "References and neighbors", bool(run.references or run.neighbors)),
        ("candidates", "Candidates", bool(run.claims)),
        ("reading", "How to read", True),
        ("repeat", "How to repeat it", True),
    )
    return [(anchor, heading) for anchor, heading, shown in there if shown]
