"""The first screen: one picture and four cards, which say what the audit shows and no more."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_pages import made_up_audit
from made_up_run import made_up_result, made_up_scores
from made_up_verdicts import shifted

from raymia.metrics.measuring import measure
from raymia.report.charts import Charts
from raymia.report.first_screen import FirstScreen, first_screen
from raymia.report.html import render
from raymia.report.sections import target_sections
from raymia.results.curves import draw
from raymia.results.result import FailedTarget, RunResult
from raymia.results.verdict import reach_verdict
from raymia.shift.result import CopiesWithin

FPRS = (0.1, 0.01, 0.001)


def laid_out(result: RunResult, curves=()) -> tuple[FirstScreen, list]:
    charts, verdict = Charts(), reach_verdict(result)
    targets = target_sections(result, verdict, list(curves), charts)
    return first_screen(result, targets, list(curves), charts), charts.all


def audit(strength: float, n: int = 400, attacks=("ez@base", "loss"), **more):
    """One checkpoint, on which all attacks are as strong."""
    draws = np.random.default_rng(3)
    is_member = np.arange(2 * n) < n
    metrics, curves = [], []
    for attack in attacks:
        values = draws.normal(size=2 * n) + strength * is_member
        metrics.append(measure(values, is_member, target="tuned", attack=attack))
        curves.append(draw(values, is_member, target="tuned", attack=attack, fprs=FPRS))
    return made_up_result(made_up_scores(), metrics=metrics, **more), curves


def said(screen: FirstScreen, question: str) -> str:
    return next((" ".join(c.lines) for c in screen.cards if c.question.startswith(question)), "")


def test_a_leak_is_told_as_people_on_records_that_did_not_choose_it():
    result, curves = audit(2.5)
    screen, _ = laid_out(result, curves)
    leader = next(t for t in reach_verdict(result).targets if t.target == "tuned").attack
    (at,) = (
        tpr for m in result.metrics if m.attack == leader for tpr in m.tpr if tpr.max_fpr == 0.01
    )
    tpr, fpr = at.held_out.tpr, at.held_out.fpr
    assert f"{tpr.hits} of {tpr.of}" in said(screen, "Who")
    assert f"wrongly accuses {fpr.hits} of {fpr.of} non-members" in said(screen, "Who")
    assert f"between {100 * tpr.low:.1f} %" in said(screen, "How sure")
    assert "The loss alone" in said(screen, "Compared") or leader == "loss"
    assert "differential privacy" in said(screen, "What to do")


def test_where_nothing_leaks_nobody_is_said_to_be_named():
    result, curves = audit(0.0)
    screen, _ = laid_out(result, curves)
    assert "no more than chance explains" in said(screen, "Who")
    assert "chance that guessing reaches" not in said(screen, "How sure")
    assert "How often an audit of this size finds a leak: an AUC of" in said(screen, "How sure")
    assert "fewer epochs" not in said(screen, "What to do")


def test_few_non_members_have_no_rate():
    result, curves = audit(0.5, n=8)
    screen, charts = laid_out(result, curves)
    assert "and 8 non-members" in said(screen, "Who")
    assert "%" not in said(screen, "Who")
    assert "threshold" not in charts[screen.histogram]


def test_nothing_measured_is_said_and_nothing_drawn():
    screen, _ = laid_out(made_up_result(made_up_scores(), metrics=[]))
    assert said(screen, "Who") == "Nothing was measured."
    assert said(screen, "How sure") == ""
    assert screen.roc is None
    assert screen.histogram is None


def test_an_incomplete_run_is_to_be_run_again():
    result, curves = audit(2.5, complete=False)
    assert "Run the same audit again" in said(laid_out(result, curves)[0], "What to do")


def test_a_checkpoint_of_errors_alone_is_to_be_mended_not_asked_again():
    failed = [FailedTarget(name="broken", reason="every one of its 9 answers is an error")]
    result, curves = audit(2.5, failed=failed)
    told = said(laid_out(result, curves)[0], "What to do")
    assert told.startswith("See why broken failed, mend that, and audit again.")
    assert "Run the same audit again" not in told


def test_the_picture_has_the_attack_of_the_verdict_its_band_and_its_threshold():
    result, curves = audit(2.5)
    screen, charts = laid_out(result, curves)
    leader = reach_verdict(result).targets[0].attack
    roc, histogram = charts[screen.roc], charts[screen.histogram]
    assert roc["curves"][0]["name"] == leader == histogram["name"]
    assert [("low" in curve) for curve in roc["curves"]] == [
        place == 0 for place in range(len(roc["curves"]))
    ]
    at = next(t for m in result.metrics if m.attack == leader for t in m.tpr if t.max_fpr == 0.01)
    assert histogram["threshold"] == pytest.approx(at.held_out.threshold, rel=1e-3)


def measured_apart(n: int, strength: float, target: str, shown_as: str):
    """An attack on records that are others than those of `audit`, and its curves."""
    draws = np.random.default_rng(5)
    is_member = np.arange(2 * n) < n
    values = 10 + draws.normal(size=2 * n) + strength * is_member
    names = {"attack": "loss"}
    return (
        measure(values, is_member, target=target, **names),
        draw(values, is_member, target=shown_as, **names, fprs=FPRS),
    )


def test_where_the_verdict_counts_groups_the_pictures_are_of_groups():
    result, curves = audit(2.5, attacks=("loss",))
    unit, of_groups = measured_apart(300, 2.5, "tuned", "tuned, by group")
    unit = unit.model_copy(update={"records_per_group": 1})
    result = result.model_copy(update={"group_metrics": [unit], "split_by_group": True})
    screen, charts = laid_out(result, [*curves, of_groups])
    assert charts[screen.roc]["members"] == 300
    assert sum(charts[screen.histogram]["members"]) == 300
    (at,) = (tpr for tpr in unit.tpr if tpr.max_fpr == 0.01)
    assert charts[screen.histogram]["threshold"] == pytest.approx(at.held_out.threshold, rel=1e-3)
    assert "of groups of records, which the verdict counts" in screen.pictures.caption
    assert screen.pictures.caption in render(result, [*curves, of_groups])
    # Where groups share copies, those without are means of other numbers of records.
    copies = CopiesWithin(
        members=2, non_members=0, groups=1, across_groups=1, proposed=[["a", "b"]]
    )
    shared = shifted("no_shift_found").model_copy(update={"copies": copies})
    shared = result.model_copy(update={"distinct_metrics": [unit], "shift": shared})
    screen, charts = laid_out(shared, [*curves, of_groups])
    assert "threshold" not in charts[screen.histogram]
    assert "counts groups without copies" in screen.pictures.caption
    # Without curves of groups, those of records, and no threshold that is not theirs.
    screen, charts = laid_out(result, curves)
    assert charts[screen.roc]["members"] == 400
    assert "threshold" not in charts[screen.histogram]
    assert "of single records" in screen.pictures.caption


def test_where_the_verdict_counts_distinct_records_the_threshold_is_theirs():
    result, curves = audit(2.5, attacks=("loss",))
    unit, _ = measured_apart(300, 2.5, "tuned", "tuned")
    copies = CopiesWithin(members=2, non_members=0, groups=1, proposed=[["a", "b"]])
    shift = shifted("no_shift_found").model_copy(update={"copies": copies})
    distinct = result.model_copy(update={"distinct_metrics": [unit], "shift": shift})
    screen, charts = laid_out(distinct, curves)
    assert sum(charts[screen.histogram]["members"]) == 400
    (at,) = (tpr for tpr in unit.tpr if tpr.max_fpr == 0.01)
    assert charts[screen.histogram]["threshold"] == pytest.approx(at.held_out.threshold, rel=1e-3)
    assert "of all records, copies among them" in screen.pictures.caption
    assert laid_out(result, curves)[0].pictures.caption is None


def test_all_checkpoints_lie_over_each_other_and_those_without_a_leak_are_named():
    result, curves = made_up_audit([f"step-{n}" for n in (1, 2, 3, 4, 5, 6)], n=100)
    screen, charts = laid_out(result, curves)
    names = [curve["name"].partition(":")[0] for curve in charts[screen.roc]["curves"]]
    assert sorted(names) == [f"step-{n}" for n in (1, 2, 3, 4, 5, 6)]
    assert names[0] == screen.target
    clear = [t.target for t in reach_verdict(result).targets if t.finding == "no_leak_found"]
    assert clear
    assert all(name in said(screen, "What to do") for name in clear[:3])


@pytest.mark.parametrize(("few", "strength", "seed"), [(120, 1.4, 0), (240, 2.2, 6)])
def test_a_rate_that_rests_on_one_record_puts_no_checkpoint_first(few, strength, seed):
    """A high rate on few records stands behind a lower one that is surely high, and rates at two
    budgets are not compared at all."""
    draws = np.random.default_rng(seed)
    metrics = []
    for target, n in (("few", few), ("many", 4_000)):
        is_member = np.arange(2 * n) < n
        values = draws.normal(size=2 * n) + strength * is_member
        metrics.append(measure(values, is_member, target=target, attack="loss"))
    result = made_up_result(made_up_scores(), metrics=metrics)
    verdict = reach_verdict(result)
    sections = target_sections(result, verdict, [], Charts())
    assert len({t.finding for t in verdict.targets}) == 1
    rates = {m.target: next(t for t in m.tpr if t.max_fpr == 0.01).estimate for m in metrics}
    assert rates["few"].value > rates["many"].value
    assert sections[0].name == "many"
    assert "The worst is many:" in verdict.sentence
    screen, _ = laid_out(result)
    assert screen.target == "many"
    assert [card.about for card in screen.cards] == ["many", "many", "many", None]
