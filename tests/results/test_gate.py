"""The release gate opens where a leak is not shown, and never because nothing was measured."""

from __future__ import annotations

import pytest
from made_up_run import made_up_result, made_up_scores

from raymia.metrics.summary import (
    AttackMetrics,
    EpsilonBound,
    HeldOutAccuracy,
    HeldOutRates,
    LimitedEstimate,
    Rate,
    TprAtFpr,
)
from raymia.results.gate import decide_again, is_open
from raymia.results.result import FailedTarget
from raymia.shift.result import ShiftCheck
from raymia.spec.conditions import check_conditions, parse_condition, parse_conditions
from raymia.util.errors import InputError


def measured(target: str, attack: str, low: float, value: float, high: float) -> AttackMetrics:
    limits = {"value": value, "low": low, "high": high}
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


def test_the_lower_limit_is_what_is_compared(run):
    assert statuses(run, "strong@ref.tpr@1%fpr > 0.19") == ["failed", "passed"]
    assert statuses(run, "strong@ref.tpr@1%fpr > 0.25") == ["passed", "passed"]


@pytest.mark.parametrize(("operator", "status"), [(">", "passed"), (">=", "failed")])
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
        "strong@ref: TPR at 1 % FPR 0.300 [0.200, 0.400], which rests on 1 non-member: the lower "
        "limit is above 0.005; so is that of 1 more of 2 attacks"
    )


def test_a_pass_that_rules_little_out_says_so(run):
    (open_,) = decided(run, "step-9:weak.auc > 0.08").values()
    assert open_.reason.endswith("so more than 0.08 is not ruled out")
    (shut,) = decided(run, "step-9:weak.auc > 0.1").values()
    assert "ruled out" not in shut.reason


def test_the_rate_is_that_of_the_table_and_not_of_a_threshold_that_overspent_its_budget(run):
    tpr = Rate(value=0.6, low=0.5, high=0.7, hits=18, of=30)
    fpr = Rate(value=0.04, low=0.0, high=0.1, hits=2, of=50)
    held_out = HeldOutRates(threshold=1.0, n_calibration=70, tpr=tpr, fpr=fpr, ppv=[])
    entry = run.metrics[0]
    at = entry.tpr[0].model_copy(update={"held_out": held_out})
    metrics = [entry.model_copy(update={"tpr": [at]}), *run.metrics[1:]]
    judged = run.model_copy(update={"metrics": metrics})
    assert statuses(judged, "step-3:strong@ref.tpr@1%fpr > 0.25") == ["passed"]


def test_a_rate_that_rests_on_few_says_so(run):
    many = run.metrics[0].model_copy(update={"n_non_members": 1_000})
    judged = run.model_copy(update={"metrics": [many, *run.metrics[1:]]})
    few, enough = (
        next(iter(decided(judged, f"{target}:strong@ref.tpr@1%fpr > 0.9").values())).reason
        for target in ("step-9", "step-3")
    )
    assert "rests on 1 non-member" in few
    assert "rests on" not in enough


def test_the_highest_bound_on_epsilon_is_compared(run):
    def bound(method, value):
        return EpsilonBound(method=method, value=value, delta=1e-5, confidence=0.95, n_judged=90)

    bounds = [bound("held_out", 0.4), bound("one_run", 1.2)]
    metrics = [run.metrics[0].model_copy(update={"epsilon": bounds}), *run.metrics[1:]]
    judged = run.model_copy(update={"metrics": metrics})
    assert statuses(judged, "step-3:strong@ref.epsilon > 1") == ["failed"]
    (outcome,) = decided(judged, "step-3:strong@ref.epsilon > 2").values()
    assert outcome.status == "passed"
    assert "epsilon is at least 1.200 (one run): the lower limit is not above 2" in outcome.reason
    assert statuses(judged, "step-3:any.epsilon > 2") == ["not_evaluated"]  # `weak` has no bound


def test_a_balanced_accuracy_that_was_not_measured_does_not_pass(run):
    without = run.metrics[3].model_copy(update={"balanced_accuracy": None})
    judged = run.model_copy(update={"metrics": [*run.metrics[:3], without]})
    assert statuses(judged, "step-9:weak.balanced_accuracy > 0.9") == ["not_evaluated"]


def test_a_budget_that_cannot_be_resolved_does_not_pass(run):
    (outcome,) = decide_again(run, ["step-9:weak.tpr@0.1%fpr > 0.9"])
    assert outcome.status == "not_evaluated"
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
        ("auc > 0.5", "'auc > 0.5': auc of which attack? expected"),
        ("any.auc >> 0.5", "is no condition; expected"),
        ("any.balanced_acuracy > 0.5", "did you mean 'balanced_accuracy'?"),
        ("any.tpr > 0.5", "did you mean 'tpr@1%fpr'?"),
        ("any.tpr@0.01 > 0.5", "did you mean 'tpr@1%fpr'?"),
        ("any.tpr@x%fpr > 0.5", "as in tpr@1%fpr, but got x%"),
        ("any.tpr@100%fpr > 0.5", "between 0 % and 100 %"),
        ("any.tpr@1%fpr > 5%", "from 0 to 1 (5 % is 0.05), but got 5%"),
        ("any.auc > 60", "from 0 to 1 (5 % is 0.05), but got 60"),
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
