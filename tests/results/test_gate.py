"""The release gate: a leak is shown, or ruled out, or the records cannot say."""

from __future__ import annotations

import pytest
from made_up_run import made_up_result, made_up_scores
from made_up_verdicts import as_groups, audit

from raymia.cli.gate import gate_code
from raymia.metrics.limits import LADDER
from raymia.metrics.summary import (
    AttackMetrics,
    EpsilonBound,
    HeldOutAccuracy,
    HeldOutRates,
    LimitedEstimate,
    Limits,
    Rate,
    TprAtFpr,
)
from raymia.results.bounds import shown_bounds
from raymia.results.gate import decide_again, gate_line, is_open
from raymia.results.result import FailedTarget, NotRun
from raymia.results.verdict import reach_verdict
from raymia.shift.result import CopiesWithin, ShiftCheck
from raymia.spec.conditions import check_conditions, parse_condition, parse_conditions
from raymia.util.errors import InputError

WITH_COPIES = ShiftCheck(
    state="no_shift_found", error_rate=0.05, n_members=60, n_non_members=120,
    copies=CopiesWithin(members=4, non_members=0, groups=1, proposed=[["a", "b", "c", "d"]]),
)  # fmt: skip


def measured(target: str, attack: str, low: float, value: float, high: float) -> AttackMetrics:
    """An attack whose limits are the same for any number of comparisons."""
    steps = len(LADDER)
    limits = {"value": value, "low": low, "high": high,
              "limits": Limits(low=[low] * steps, high=[high] * steps)}  # fmt: skip
    found = LimitedEstimate(**limits)
    accuracy = HeldOutAccuracy(**limits, threshold=0.0, n_members=30, n_non_members=60)
    return AttackMetrics(
        target=target, attack=attack, n_members=60, n_non_members=120, n_unscored=0,
        auc=found, balanced_accuracy=accuracy, one_minus_eer=0.5, confidence=0.95,
        tpr=[
            TprAtFpr(max_fpr=0.01, resolvable=True, estimate=found, needed_non_members=100),
            TprAtFpr(max_fpr=0.001, resolvable=False, estimate=None, needed_non_members=1000),
        ],
    )  # fmt: skip


@pytest.fixture
def run():
    """Attack `strong` has an interval of [0.2, 0.4], `weak` one of [0.01, 0.09]."""
    return made_up_result(
        made_up_scores(n_members=4, n_non_members=4),
        metrics=[
            measured("step-3", "strong@ref", 0.2, 0.3, 0.4),
            measured("step-3", "weak", 0.01, 0.05, 0.09),
            measured("step-9", "strong@ref", 0.01, 0.02, 0.03),
            measured("step-9", "weak", 0.01, 0.05, 0.09),
        ],
    )


def decided(run, *conditions):
    return {(o.condition, o.target): o for o in decide_again(run, conditions)}


def statuses(run, condition):
    return [outcome.status for outcome in decided(run, condition).values()]


def test_it_fails_above_the_number_passes_below_it_and_is_undecided_around_it(run):
    assert statuses(run, "strong@ref.tpr@1%fpr > 0.19") == ["failed", "passed"]
    assert statuses(run, "strong@ref.tpr@1%fpr > 0.25") == ["undecided", "passed"]
    assert statuses(run, "strong@ref.tpr@1%fpr > 0.41") == ["passed", "passed"]
    assert statuses(run, "any.tpr@1%fpr > 0.05") == ["failed", "undecided"]


@pytest.mark.parametrize(("operator", "status"), [(">", "undecided"), (">=", "failed")])
def test_reaching_the_limit_counts_only_where_it_is_said(run, operator, status):
    assert statuses(run, f"step-3:strong@ref.auc {operator} 0.2") == [status]


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy", "tpr@1%fpr"])
def test_every_metric_can_be_a_condition(run, metric):
    assert statuses(run, f"any.{metric} > 0.1") == ["failed", "passed"]


def test_a_pattern_is_about_every_attack_and_target_it_fits(run):
    assert statuses(run, "*@ref.auc > 0.1") == ["failed", "passed"]
    assert statuses(run, "step-?:weak.auc > 0.005") == ["failed", "failed"]
    assert statuses(run, "step-9:any.auc > 0.1") == ["passed"]


def test_a_failure_names_the_worst_attack_with_its_figures(run):
    (outcome,) = decided(run, "step-3:any.tpr@1%fpr > 0.005").values()
    assert outcome.reason == (
        "strong@ref: TPR at 1 % FPR 0.300 [0.200, 0.400]: the lower limit for 2 comparisons, "
        "0.200, is above 0.005; the same holds of 1 more of 2 attacks"
    )


def test_undecided_says_how_many_records_would_decide_it(run):
    (outcome,) = decided(run, "step-3:strong@ref.auc > 0.25").values()
    assert outcome.status == "undecided"
    # Twice as far from the limit as the interval reaches: four times the 60 members.
    assert "about 240 members and as many non-members would decide it" in outcome.reason
    (near,) = decided(run, "step-3:strong@ref.auc > 0.3").values()
    assert "more than 1,000 times as many records would be needed" in near.reason
    (rate,) = decided(run, "step-9:weak.tpr@1%fpr > 0.02").values()
    assert "about 300 members" in rate.reason, "0.99^300 is 5 %: fewer may all be below it"


def test_limits_are_those_of_all_comparisons_of_a_condition(run):
    """Of four figures each lower limit is at 1.25 %; the upper ones of two targets at 2.5 %."""
    entry = run.metrics[0]
    low, high = [0.3, 0.2, 0.1, *[0.0] * 5], [0.35, 0.45, 0.5, *[0.6] * 5]
    auc = entry.auc.model_copy(update={"value": 0.32, "limits": Limits(low=low, high=high)})
    metrics = [entry.model_copy(update={"auc": auc}), *run.metrics[1:]]
    judged = run.model_copy(update={"metrics": metrics})
    assert statuses(judged, "step-3:strong@ref.auc > 0.25") == ["failed"]
    assert statuses(judged, "any.auc > 0.25")[0] == "undecided"
    assert statuses(judged, "any.auc > 0.19")[0] == "failed"
    assert statuses(judged, "step-3:any.auc > 0.36") == ["passed"], "all must be below it"
    assert statuses(judged, "any.auc > 0.36")[0] == "undecided"


def test_a_run_of_an_earlier_version_is_undecided_and_says_what_to_do(run):
    old = [
        entry.model_copy(update={"auc": entry.auc.model_copy(update={"limits": None})})
        for entry in run.metrics
    ]
    judged = run.model_copy(update={"metrics": old})
    outcomes = decide_again(judged, ["any.auc > 0.001"])
    assert [outcome.status for outcome in outcomes] == ["undecided", "undecided"]
    assert "an earlier version of raymia measured it" in outcomes[0].reason
    assert "run the audit again" in outcomes[0].reason


def test_undecided_opens_the_gate_only_where_that_is_wanted(run):
    outcomes = decide_again(run, ["any.tpr@1%fpr > 0.05"])
    undecided = outcomes[1:]
    assert not is_open(undecided)
    assert is_open(undecided, "pass")
    assert not is_open(outcomes, "pass"), "one failed"
    gated = run.model_copy(update={"gate": outcomes})
    assert gate_line(gated) == "gate: closed, 1 of 2 failed, 1 of 2 undecided"
    opened = gated.model_copy(update={"gate": undecided, "undecided": "pass"})
    assert gate_line(opened) == "gate: open, 1 of 1 undecided; undecided conditions may pass"


def test_the_exit_code_tells_undecided_from_failed(run):
    outcomes = decide_again(run, ["any.tpr@1%fpr > 0.05"])
    codes = [
        gate_code(run.model_copy(update={"gate": gate, "undecided": undecided}))
        for gate, undecided in (
            (outcomes, "fail"), (outcomes[1:], "fail"), (outcomes[1:], "pass"), ([], "fail"),
        )
    ]  # fmt: skip
    assert codes == [4, 6, 0, 0]


def test_where_nothing_could_be_tested_no_verdict_opens_the_gate(run):
    """Groups were split, and none has a score: that is not that no leak was found."""
    untested = run.model_copy(update={"group_metrics": [], "split_by_group": True})
    outcomes = decide_again(untested, ["verdict >= leaks"])
    assert {(o.status, o.reason) for o in outcomes} == {
        ("not_evaluated", "the verdict is not measurable")
    }


def test_a_verdict_can_be_a_condition():
    result = made_up_result(made_up_scores(n_members=300, n_non_members=400))
    finding = {one.target: one.finding for one in reach_verdict(result).targets}["tuned"]
    assert finding == "leaks_strongly"
    assert statuses(result, "tuned:verdict >= leaks") == ["failed"]
    assert statuses(result, "tuned:verdict > leaks") == ["failed"]
    assert statuses(result, "verdict > leaks_strongly") == ["passed", "passed"]


def test_whether_a_leak_is_strong_is_not_decided_beyond_the_limits_that_were_kept():
    """As of more than 8,192 attacks over all checkpoints, in runs that kept eight limits."""

    def with_one_limit(result):
        (loss,) = result.metrics
        kept = loss.auc.limits.model_copy(update={"low": loss.auc.limits.low[:1]})
        short = loss.model_copy(update={"auc": loss.auc.model_copy(update={"limits": kept})})
        return result.model_copy(update={"metrics": [short]})

    weak, strong = (audit({"tuned/loss": shift}, n=400) for shift in (0.6, 2.4))
    for result in (weak, with_one_limit(weak)):
        assert statuses(result, "verdict >= leaks_strongly") == ["passed"]
    assert statuses(strong, "verdict >= leaks_strongly") == ["failed"]
    unknown = with_one_limit(strong)
    (outcome,) = decide_again(unknown, ["verdict >= leaks_strongly"])
    assert outcome.status == "not_evaluated"
    assert "limits are not kept for as many attacks as were tried" in outcome.reason
    assert statuses(unknown, "verdict >= leaks") == ["failed"]


def test_upper_limits_pass_where_no_lower_limit_is_kept_for_so_many_comparisons():
    """Upper limits are corrected for the checkpoints alone, and all of them are needed to pass."""
    result = audit({"tuned/loss": 0.6, "tuned/zlib": 0.6}, n=400)
    metrics = []
    for entry in result.metrics:
        kept = {side: getattr(entry.auc.limits, side)[:1] for side in ("low", "high")}
        auc = entry.auc.model_copy(update={"limits": Limits(**kept)})
        metrics.append(entry.model_copy(update={"auc": auc}))
    short = result.model_copy(update={"metrics": metrics})
    assert statuses(short, "any.auc > 0.9") == statuses(result, "any.auc > 0.9") == ["passed"]
    (outcome,) = decide_again(short, ["any.auc > 0.55"])
    assert outcome.status == "undecided"
    assert "and the condition compares more figures than limits are kept for" in outcome.reason


def test_a_verdict_that_somebody_wrote_is_reached_anew():
    result = made_up_result(made_up_scores(n_members=300, n_non_members=400))
    verdict = reach_verdict(result)
    kind = [one.model_copy(update={"finding": "no_leak_found"}) for one in verdict.targets]
    edited = result.model_copy(update={"verdict": verdict.model_copy(update={"targets": kind})})
    assert "failed" in statuses(edited, "verdict >= leaks")


def test_too_few_records_to_show_any_leak_do_not_pass():
    few = made_up_result(made_up_scores(n_members=3, n_non_members=3))
    assert {*statuses(few, "verdict >= leaks")} == {"not_evaluated"}


def test_a_least_number_of_records_can_be_a_condition(run):
    counts = run.model_copy(
        update={"records": run.records.model_copy(update={"members": 60, "non_members": 120})}
    )
    (few,) = decide_again(counts, ["members < 100"])
    assert (few.status, few.reason) == ("failed", "there are 60 members, fewer than 100")
    (enough,) = decide_again(counts, ["non_members < 100"])
    assert (enough.status, enough.reason) == ("passed", "there are 120 non-members, at least 100")


def test_records_without_a_score_do_not_count(run):
    """Of the checkpoint with the fewest, by the attack that scored most."""
    few = [m.model_copy(update={"n_members": 30}) for m in run.metrics[2:]]
    lacking = run.model_copy(
        update={
            "metrics": [*run.metrics[:2], few[0], few[1].model_copy(update={"n_members": 40})],
            "records": run.records.model_copy(update={"members": 60}),
        }
    )
    (outcome,) = decide_again(lacking, ["members < 50"])
    assert (outcome.status, outcome.reason) == (
        "failed", "40 members of 60 have a score on step-9, fewer than 50",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        ({"complete": False}, "the run is incomplete: run it again to go on, and decide then"),
        ({"failed": [FailedTarget(name="step-1", reason="no file")]},
         "target step-1 failed: no file"),
    ],
)  # fmt: skip
def test_counts_of_a_run_that_lacks_something_let_nothing_pass(run, lacks, reason):
    records = run.records.model_copy(update={"members": 60})
    lacking = run.model_copy(update={"records": records, **lacks})
    (enough,) = decide_again(lacking, ["members < 50"])
    assert (enough.status, enough.reason) == ("not_evaluated", reason)
    assert gate_code(lacking.model_copy(update={"gate": [enough]})) == 4
    (few,) = decide_again(lacking, ["members < 100"])
    assert few.status == "failed"


def test_an_attack_that_could_not_be_run_lets_nothing_pass(run):
    why = "it wrote no text"
    lost = NotRun(target="step-9", attack="spv@self", reason=why)
    lacking = run.model_copy(update={"not_run": [lost]})
    found = decided(lacking, "any.tpr@1%fpr > 0.1", "weak.tpr@1%fpr > 0.1")
    outcome = found["any.tpr@1%fpr > 0.1", "step-9"]
    assert (outcome.status, outcome.reason) == ("not_evaluated", f"spv@self: {why}")
    assert found["weak.tpr@1%fpr > 0.1", "step-9"].status == "passed"
    assert found["any.tpr@1%fpr > 0.1", "step-3"].status == "failed"
    leaks = lacking.model_copy(update={"not_run": [lost.model_copy(update={"target": "step-3"})]})
    assert decided(leaks, "any.tpr@1%fpr > 0.1")["any.tpr@1%fpr > 0.1", "step-3"].status == "failed"


def test_figures_of_groups_count_where_that_is_said_or_groups_were_split(run):
    groups = [m.model_copy(update={"n_members": 6, "records_per_group": 1}) for m in (
        measured("step-3", "strong@ref", 0.0, 0.2, 0.9),
        measured("step-3", "weak", 0.0, 0.1, 0.9),
    )]  # fmt: skip
    grouped = run.model_copy(update={"group_metrics": groups})
    (outcome,) = decide_again(grouped, ["step-3:any.auc > 0.1 by group"])
    assert outcome.status == "undecided"
    assert outcome.reason.startswith("by group, ")
    assert statuses(grouped, "step-3:any.auc > 0.1") == ["failed"]
    split = grouped.model_copy(update={"split_by_group": True})
    assert statuses(split, "step-3:any.auc > 0.1") == ["undecided"], "records are not independent"
    assert "groups of members and as many groups of non-members would decide it" in outcome.reason
    (none,) = decide_again(run, ["step-3:any.auc > 0.1 by group"])
    assert (none.status, none.reason) == (
        "not_evaluated",
        "no group was measured: the run has none, or each mixes members and others",
    )


def test_figures_of_distinct_records_count_where_some_are_copies(run):
    """A cluster of copies passes a threshold as one, so limits on all records are too narrow."""
    distinct = [
        measured("step-3", "strong@ref", 0.0, 0.2, 0.9),
        measured("step-3", "weak", 0.0, 0.1, 0.9),
    ]
    copied = run.model_copy(
        update={
            "distinct_metrics": distinct,
            "group_metrics": as_groups(run.metrics),
            "shift": WITH_COPIES,
        }
    )
    assert statuses(run, "step-3:any.auc > 0.1") == ["failed"]
    (outcome,) = decide_again(copied, ["step-3:any.auc > 0.1"])
    assert outcome.status == "undecided"
    assert outcome.reason.startswith("on distinct records, ")
    assert "distinct members and as many distinct non-members would decide it" in outcome.reason
    assert statuses(copied, "step-3:any.auc > 0.1 by group") == ["failed"]
    assert statuses(copied, "members < 1") == statuses(run, "members < 1") == ["passed"]


def test_a_run_from_before_distinct_records_were_measured_is_decided_by_no_attack(run):
    """Limits on all records are too narrow where some are copies, and these have no others."""
    old = run.model_copy(update={"group_metrics": as_groups(run.metrics), "shift": WITH_COPIES})
    for condition in ("step-3:any.auc > 0.1", "step-9:any.auc > 0.5", "step-9:any.epsilon > 1"):
        (outcome,) = decide_again(old, [condition])
        assert outcome.status == "not_evaluated"
        assert "an earlier version did not measure one of each alone" in outcome.reason
        assert "run the audit again" in outcome.reason
    assert statuses(old, "verdict >= leaks") == ["not_evaluated"] * 2
    assert statuses(old, "step-3:any.auc > 0.1 by group") == ["failed"]
    assert statuses(old, "members < 1") == ["passed"]


def test_the_rate_is_that_of_the_table_and_not_of_a_threshold_that_overspent_its_budget(run):
    tpr = Rate(value=0.6, low=0.5, high=0.7, hits=18, of=30)
    fpr = Rate(value=0.04, low=0.0, high=0.1, hits=2, of=50)
    held_out = HeldOutRates(threshold=1.0, n_calibration=70, tpr=tpr, fpr=fpr, ppv=[])
    entry = run.metrics[0]
    at = entry.tpr[0].model_copy(update={"held_out": held_out})
    metrics = [entry.model_copy(update={"tpr": [at]}), *run.metrics[1:]]
    judged = run.model_copy(update={"metrics": metrics})
    assert statuses(judged, "step-3:strong@ref.tpr@1%fpr > 0.45") == ["passed"]


def test_the_bound_of_epsilon_is_the_one_that_was_chosen_on_other_records(run):
    def bound(method, value, chosen_by, high=None):
        return EpsilonBound(
            method=method, value=value, delta=1e-5, confidence=0.95, n_judged=90, high=high,
            chosen_by=chosen_by, limits=[value] * len(LADDER),
        )  # fmt: skip

    bounds = [bound("held_out", 1.4, 0.3, high=2.0), bound("one_run", 1.2, 1.0)]
    other = [bound("held_out", 1.8, 0.2, high=2.5)]
    metrics = [
        run.metrics[0].model_copy(update={"epsilon": bounds}),
        run.metrics[1].model_copy(update={"epsilon": other}),
    ]
    judged = run.model_copy(update={"metrics": metrics})
    assert statuses(judged, "any.epsilon > 1.1") == ["failed"]
    assert statuses(judged, "any.epsilon > 1.5") == ["undecided"], "1.8 is the best of three"
    assert statuses(judged, "any.epsilon > 2.6") == ["passed"]
    (unbounded,) = decide_again(judged, ["any.epsilon > 1.5"])
    assert "lies between" not in unbounded.reason, "the bound that was not chosen has no lower one"
    assert "the upper limit, 2.500, is above 1.5" in unbounded.reason
    one_run = metrics[0].model_copy(update={"epsilon": bounds[1:]})
    (open_,) = decide_again(run.model_copy(update={"metrics": [one_run]}), ["any.epsilon > 2"])
    assert open_.reason.endswith("nothing that was measured gives it an upper limit")
    (outcome,) = decide_again(judged, ["strong@ref.epsilon > 1.1"])
    assert "epsilon is at least 1.200 (one run)" in outcome.reason
    assert statuses(run, "step-3:any.epsilon > 2") == ["not_evaluated"]  # no bound
    leader = judged.metrics[1]
    first, *others = shown_bounds(judged, leader)
    assert (first.attack, first.bound, first.is_compared) == ("strong@ref", bounds[1], True)
    assert [(o.attack, o.bound, o.is_compared) for o in others] == [("weak", other[0], False)]
    distinct = judged.model_copy(
        update={"metrics": run.metrics, "distinct_metrics": metrics, "shift": WITH_COPIES}
    )
    assert shown_bounds(distinct, run.metrics[1]) == [first, *others], "of what a gate counts"
    assert shown_bounds(run, run.metrics[1]) == []
    # Bounds of records and of what the gate counts stand in no table together.
    apart = distinct.model_copy(
        update={
            "metrics": judged.metrics,
            "distinct_metrics": [m for m in metrics if m.attack != "weak"],
        }
    )
    assert shown_bounds(apart, leader) == [first]


def test_a_balanced_accuracy_that_was_not_measured_does_not_pass(run):
    without = run.metrics[3].model_copy(update={"balanced_accuracy": None})
    judged = run.model_copy(update={"metrics": [*run.metrics[:3], without]})
    assert statuses(judged, "step-9:weak.balanced_accuracy > 0.9") == ["not_evaluated"]


def test_a_budget_that_cannot_be_resolved_does_not_pass(run):
    (outcome,) = decide_again(run, ["step-9:weak.tpr@0.1%fpr > 0.9"])
    assert outcome.status == "undecided"
    assert "0.1 % FPR is not resolvable (needs >= 1,000 non-members)" in outcome.reason
    assert not is_open([outcome])


def test_an_attack_that_was_not_measured_does_not_pass():
    result = made_up_result(made_up_scores())
    outcomes = decide_again(result, ["any.auc > 0.9999"])
    assert [o.status for o in outcomes] == ["not_evaluated"] * 2
    assert "zlib: not measured, at least 2 members must have a score" in outcomes[0].reason
    # What is shown by another attack is shown all the same.
    assert statuses(result, "any.auc > 0.6") == ["failed", "failed"]


def test_a_target_that_failed_does_not_pass(run):
    lost = run.model_copy(update={"failed": [FailedTarget(name="step-12", reason="no memory")]})
    (outcome,) = decided(lost, "step-12:weak.auc > 0.9").values()
    assert (outcome.status, outcome.reason) == ("not_evaluated", "the target failed: no memory")
    assert statuses(lost, "weak.auc > 0.9") == ["passed", "passed", "not_evaluated"]


def test_an_incomplete_run_does_not_pass(run):
    unfinished = run.model_copy(update={"complete": False})
    (outcome,) = decided(unfinished, "step-9:weak.auc > 0.9").values()
    assert outcome.status == "not_evaluated"
    assert "the run is incomplete" in outcome.reason


def test_records_that_differ_without_the_model_do_not_pass(run):
    def checked(state):
        check = ShiftCheck(state=state, error_rate=0.05, n_members=60, n_non_members=120)
        return run.model_copy(update={"shift": check})

    for condition in ("step-9:weak.auc > 0.9", "step-3:strong@ref.auc > 0.1"):
        (outcome,) = decided(checked("shift"), condition).values()
        assert outcome.status == "not_evaluated"
        assert "members and non-members differ without any model" in outcome.reason
    assert statuses(checked("no_shift_found"), "step-9:weak.auc > 0.9") == ["passed"]


def test_a_reason_that_several_attacks_share_is_given_once(run):
    shift = ShiftCheck(state="shift", error_rate=0.05, n_members=60, n_non_members=120)
    (outcome,) = decide_again(run.model_copy(update={"shift": shift}), ["step-9:any.auc > 0.9"])
    assert outcome.reason.startswith("strong@ref, weak: members and non-members differ")
    assert outcome.reason.count("without any model") == 1


def test_an_attack_left_out_on_a_target_does_not_pass(run):
    fewer = run.model_copy(update={"metrics": run.metrics[:3]})
    assert statuses(fewer, "weak.auc > 0.9") == ["passed", "not_evaluated"]


def test_a_run_in_which_nothing_was_measured_does_not_pass(run):
    empty = run.model_copy(update={"metrics": []})
    (outcome,) = decided(empty, "any.auc > 0.9").values()
    assert outcome.status == "not_evaluated"
    assert "it takes members and non-members" in outcome.reason


def test_without_conditions_a_run_is_decided_by_its_own(run):
    gated = run.model_copy(update={"gate": decide_again(run, ["any.auc > 0.1"])})
    assert decide_again(gated, []) == gated.gate
    assert decide_again(gated, ["any.auc > 0.9"])[0].condition == "any.auc > 0.9"
    with pytest.raises(InputError, match="has no conditions; give one"):
        decide_again(run, [])


@pytest.mark.parametrize(
    ("condition", "nearest"),
    [
        ("strong@reff.auc > 0.5", "no attack 'strong@reff'; did you mean 'strong@ref'?"),
        ("step-33:any.auc > 0.5", "no target 'step-33'; did you mean 'step-3'?"),
        ("any.tpr@2%fpr > 0.5", "no tpr@2%fpr; did you mean tpr@1%fpr? metrics.fprs gives: "),
    ],
)
def test_what_a_run_does_not_measure_is_refused_with_the_nearest_name(run, condition, nearest):
    with pytest.raises(InputError) as refused:
        decide_again(run, [condition])
    assert nearest in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("any.auc < 0.5", "is no condition; expected"),
        ("any.auc == 0.5", "is no condition; expected"),
        ("any.auc", "is no condition; expected"),
        ("auc > 0.5", "expected [TARGET:]ATTACK.METRIC"),
        ("any.auk > 0.5", "no metric 'auk'; did you mean 'auc'?"),
        ("extraktion > 0", "no metric 'extraktion'; did you mean 'extraction'?"),
        ("verdickt >= leaks", "did you mean 'verdict'?"),
        ("member < 100", "is no condition"),
        ("auc > 0.5", "'auc > 0.5': auc of which attack? expected"),
        ("any.auc >> 0.5", "is no condition; expected"),
        ("any.balanced_acuracy > 0.5", "did you mean 'balanced_accuracy'?"),
        ("any.tpr > 0.5", "did you mean 'tpr@1%fpr'?"),
        ("any.tpr@0.01 > 0.5", "did you mean 'tpr@1%fpr'?"),
        ("any.tpr@x%fpr > 0.5", "as in tpr@1%fpr, but got x%"),
        ("any.tpr@100%fpr > 0.5", "between 0 % and 100 %"),
        ("any.tpr@1%fpr > 5%", "from 0 to 1 (5 % is 0.05), but got 5%"),
        ("any.auc > 60", "from 0 to 1 (5 % is 0.05), but got 60"),
        ("verdict >= bad", "expected [TARGET:]verdict >= leaks or leaks_strongly"),
        ("members < many", "expected members < NUMBER, a whole number of records"),
        ("members > 400", "expected members < NUMBER, a whole number of records"),
        ("any.epsilon > -1", "a number of at least 0, but got -1"),
        ("any.epsilon > nan", "but got nan"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_was_expected(text, message):
    with pytest.raises(InputError) as refused:
        parse_conditions([text])
    assert message in str(refused.value)
    assert text in str(refused.value)


def test_all_wrong_conditions_are_said_at_once():
    with pytest.raises(InputError) as refused:
        parse_conditions(["a", "b"])
    assert len(refused.value.problems) == 2


def test_names_with_dots_at_signs_and_parameters_are_read_whole():
    read = parse_condition("step-3000.v2: min_k(share=0.1)@self_prompt.tpr@0.7%fpr >= 0.05")
    assert (read.targets, read.attacks) == ("step-3000.v2", "min_k(share=0.1)@self_prompt")
    assert (read.metric, read.max_fpr, read.or_equal, read.limit) == ("tpr", 0.007, True, 0.05)
    check_conditions([read], {"step-3000.v2": [read.attacks]}, [0.007])
