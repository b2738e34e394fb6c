"""What the page draws is what was measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_pages import ATTACKS, made_up_audit
from scipy.stats import binom

from raymia.metrics.summary import LimitedEstimate
from raymia.report.charts import (
    MAX_CHECKPOINTS,
    Charts,
    band,
    cost_chart,
    histogram_chart,
    loss_chart,
    steps_chart,
)
from raymia.report.html import render
from raymia.report.sections import groups_overlaid, unit_sections
from raymia.report.series import find_series, numbered
from raymia.results.curves import draw
from raymia.results.ranking import by_groups, of_groups_of, rank
from raymia.results.verdict import reach_verdict


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("step-3000", ("step", 3000)),
        ("checkpoint-200", ("checkpoint", 200)),
        ("epoch3", ("epoch", 3)),
        ("run.b_07", ("run.b", 7)),
        ("1500", ("", 1500)),
        ("tuned", None),
        ("step-3000-merged", None),
    ],
)
def test_number_at_the_end_of_a_name(name, expected):
    assert numbered(name) == expected


def series_of(targets):
    result, _ = made_up_audit(targets, n=60)
    leaders = {ranking.target: ranking.measured[0] for ranking in rank(result.metrics)}
    return result, find_series(rank(result.metrics), leaders, result.losses)


def test_checkpoints_are_a_series_in_the_order_of_their_numbers():
    result, (series,) = series_of(["step-100", "step-20", "tuned", "step-3", "epoch-1", "epoch-2"])
    assert series.targets == ["step-3", "step-20", "step-100"]
    chart = steps_chart(series)
    assert chart["steps"] == "step"
    first = chart["lines"][0]
    metrics = {m.target: m for m in result.metrics if m.attack == first["name"]}
    assert first["x"] == [3, 20, 100]
    assert first["y"] == pytest.approx([metrics[t].auc.value for t in series.targets], abs=1e-3)
    assert first["low"] == pytest.approx([metrics[t].auc.low for t in series.targets], abs=1e-3)
    losses = {loss.target: loss.non_members for loss in result.losses}
    against = loss_chart(series)
    assert against["x"] == pytest.approx([losses[t] for t in series.targets], abs=1e-3)


def test_two_checkpoints_are_no_series():
    assert series_of(["step-1", "step-2", "other"])[1] == []


def test_band_is_clopper_and_pearsons():
    """At its ends the count that was seen is just as rare as the level says."""
    hits, of = np.array([0, 1, 17, 39, 40]), 40
    low, high = band(hits, of, 0.95)
    for k, at, above in zip(hits, low, high, strict=True):
        assert (at == 0) if k == 0 else binom.sf(k - 1, of, at) == pytest.approx(0.025)
        assert (above == 1) if k == of else binom.cdf(k, of, above) == pytest.approx(0.025)


def test_attack_is_named_where_none_is_as_strong_for_less():
    result, _ = made_up_audit(["tuned"], n=60)
    areas = {"ez@self_prompt": 0.9, "ratio@base": 0.8, "loss": 0.8, "neighbor": 0.9, "zlib": 0.6}
    measured = [
        m.model_copy(update={"auc": LimitedEstimate(value=areas[m.attack], low=0.5, high=1.0)})
        for m in result.metrics
    ]
    queries = {"ez@self_prompt": 2, "ratio@base": 2, "loss": 1, "neighbor": 11, "zlib": 1}
    chart = cost_chart(measured, queries)
    best = {name for name, best in zip(chart["names"], chart["best"], strict=True) if best}
    assert best == {"ez@self_prompt", "loss"}
    assert cost_chart(measured, {"loss": 1}) is None


def test_histogram_holds_every_score_and_is_none_of_one_value():
    draws = np.random.default_rng(0)
    is_member = np.arange(300) < 100
    chart = histogram_chart(draw(draws.normal(size=300), is_member, target="t", attack="a"))
    assert (sum(chart["members"]), sum(chart["nonMembers"])) == (100, 200)
    assert len(chart["edges"]) == len(chart["members"]) + 1
    assert histogram_chart(draw(np.ones(300), is_member, target="t", attack="a")) is None


def test_checkpoints_stand_most_exposed_first():
    targets = [f"step-{n}" for n in (1, 2, 3, 4)]
    result, curves = made_up_audit(targets, n=400)
    page = render(result, curves)
    verdicts = {entry.target: entry for entry in reach_verdict(result).targets}
    assert len({entry.finding for entry in verdicts.values()}) > 1
    severity = ["no_leak_found", "leaks", "leaks_strongly"]

    def exposure(target):
        verdict = verdicts[target]
        (led,) = (m for m in result.metrics if (m.target, m.attack) == (target, verdict.attack))
        return severity.index(verdict.finding), led.tpr[1].estimate.low, led.auc.low

    expected = sorted(targets, key=exposure, reverse=True)
    assert sorted(targets, key=lambda t: page.index(f'<td data-value="{t}">')) == expected
    assert page.count("ez@self_prompt") > len(ATTACKS)


def grouped(targets):
    """An audit of groups of two records, with what is drawn of records and of groups."""
    result, curves = made_up_audit(targets, n=60)
    drawn = [replace(entry, target=of_groups_of(entry.target)) for entry in curves]
    return result.model_copy(update={"group_metrics": result.metrics}), curves, drawn


def test_groups_of_several_checkpoints_lie_over_each_other_on_one_roc():
    result, curves, drawn = grouped(["one", "two"])
    charts = Charts()
    number = groups_overlaid(by_groups(result), [*curves, *drawn], charts)
    chart = charts.all[number]
    leaders = {r.target: r.measured[0].attack for r in by_groups(result)}
    assert {line["name"] for line in chart["curves"]} == {
        f"{target}: {attack}" for target, attack in leaders.items()
    }
    assert all(target.endswith(", by group") for target in leaders)
    assert 'aria-label="ROC curves over groups' in render(result, [*curves, *drawn])


def test_of_many_checkpoints_the_most_exposed_lie_over_each_other():
    """So that a phone's legend, one line each, ends."""
    targets = [f"step-{n}" for n in range(MAX_CHECKPOINTS + 3)]
    result, curves, drawn = grouped(targets)
    strongest = {of_groups_of(target) for target in targets[-5:]}
    charts = Charts()
    chart = charts.all[groups_overlaid(by_groups(result), [*curves, *drawn], charts)]
    assert len(chart["curves"]) == MAX_CHECKPOINTS
    assert strongest <= {line["name"].partition(": ")[0] for line in chart["curves"]}
    page = render(result, [*curves, *drawn])
    said = f"are of the {MAX_CHECKPOINTS} most exposed of {len(targets)} checkpoints"
    assert page.count(said) == 2
    all_charts = json.loads(page.partition('id="charts">')[2].partition("</script>")[0])
    assert max(len(one.get("curves", [])) for one in all_charts) == MAX_CHECKPOINTS
    few, some, others = grouped(targets[:MAX_CHECKPOINTS])
    assert "most exposed of" not in render(few, [*some, *others])


def test_groups_of_one_checkpoint_are_drawn_with_all_attacks():
    result, curves, drawn = grouped(["one"])
    charts = Charts()
    assert groups_overlaid(by_groups(result), drawn, charts) is None
    (section,) = unit_sections(by_groups(result), drawn, charts)
    assert {line["name"] for line in charts.all[section.roc]["curves"]} == set(ATTACKS)
    assert 'aria-label="ROC curves of one, by group' in render(result, [*curves, *drawn])


def test_runs_from_before_groups_were_drawn_have_their_numbers_alone():
    result, curves, _ = grouped(["one", "two"])
    assert groups_overlaid(by_groups(result), curves, Charts()) is None
