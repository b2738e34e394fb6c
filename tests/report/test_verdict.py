"""The verdict says what the numbers bear out, and not more."""

import itertools
import math

import numpy as np
import pytest
from made_up_run import made_up_result, made_up_scores
from made_up_verdicts import as_groups, audit, excess, shifted
from scipy.special import comb

from raymia.metrics.measuring import measure
from raymia.metrics.roc import roc_curve, tpr_at_fpr
from raymia.metrics.summary import LimitedEstimate, NotMeasured
from raymia.results.chance import Test as ChanceTest
from raymia.results.chance import chance_of_auc, chance_of_rate
from raymia.results.result import AttackCard, FailedTarget, ReferenceCard, RunResult
from raymia.results.telling import what_it_does
from raymia.results.verdict import reach_verdict


def test_strong_leak_is_told_with_its_attack_and_numbers():
    result = audit({"tuned/loss": 0.3, "tuned/ratio": 3.0}, n=300)
    verdict = reach_verdict(result)
    assert verdict.finding == "leaks_strongly"
    held_out = next(m for m in result.metrics if m.attack == "ratio").tpr[1].held_out
    assert verdict.sentence.startswith(
        f"tuned leaks strongly. ratio names {held_out.tpr.hits} of {held_out.tpr.of} members "
        f"({100 * held_out.tpr.value:.1f} % "
        f"[{100 * held_out.tpr.low:.1f}, {100 * held_out.tpr.high:.1f}]) and wrongly accuses "
        f"{held_out.fpr.hits} of {held_out.fpr.of} non-members. AUC "
    )
    assert verdict.targets[0].attack == "ratio"


def test_where_a_half_does_not_resolve_one_percent_the_next_budget_is_told():
    result = audit({"tuned/loss": 0.3, "tuned/ratio": 3.0}, n=120)
    held_out = next(m for m in result.metrics if m.attack == "ratio").tpr[0].held_out
    accused = f"and wrongly accuses {held_out.fpr.hits} of {held_out.fpr.of} non-members."
    assert accused in reach_verdict(result).sentence


def test_a_leak_is_strong_by_the_lower_limit_of_its_rate_that_is_corrected_for_every_attack():
    """Its rate on all records: by the one half alone, one of many weak leaks often looks strong."""
    result = audit({"tuned/ratio": 2.0}, n=600)
    (metrics,) = result.metrics
    at, area = metrics.tpr[1], metrics.auc.model_copy(update={"low": 0.7, "limits": None})
    weak = metrics.model_copy(update={"attack": "weak", "auc": area, "tpr": []})
    steps = [0.2, 0.12, 0.11, 0.08, 0.0, 0.0, 0.0, 0.0]  # at 5 %, 1.25 %, 0.3 %, and so on
    for low, others, finding in (
        (steps, 0, "leaks_strongly"),  # 0.136 at 2.5 %
        (steps, 7, "leaks_strongly"),  # 0.11 at 0.31 %
        (steps, 31, "leaks"),  # 0.08 at 0.08 %
        (None, 0, "leaks"),  # an earlier run kept an interval alone: not known
    ):
        limits = None if low is None else at.estimate.limits.model_copy(update={"low": low})
        estimate = at.estimate.model_copy(update={"limits": limits})
        tpr = [metrics.tpr[0], at.model_copy(update={"estimate": estimate}), metrics.tpr[2]]
        changed = metrics.model_copy(update={"tpr": tpr, "auc": area})
        run = result.model_copy(update={"metrics": [changed, *[weak] * others]})
        assert reach_verdict(run).finding == finding


def test_weak_leak_is_no_strong_one():
    verdict = reach_verdict(audit({"tuned/loss": 0.55}, n=200))
    assert verdict.finding == "leaks"
    assert "strongly" not in verdict.sentence


def test_guessing_is_no_leak_and_says_what_would_have_been_missed():
    result = audit({"tuned/loss": 0.0, "tuned/ratio": 0.0})
    verdict = reach_verdict(result)
    assert verdict.finding == "no_leak_found"
    highest = max(m.auc.high for m in result.metrics)
    most = max(m.tpr[0].estimate.high for m in result.metrics)
    area, rate = math.ceil(100 * highest) / 100, math.ceil(1000 * most) / 10
    assert verdict.sentence.endswith(
        f"Not ruled out: an AUC of up to {area:.2f} (0.5 is guessing) and {rate:.1f} % "
        "of the members named at 10 % FPR."
    )
    assert "no proof of privacy" in verdict.limits[0]


@pytest.mark.long
def test_audit_of_many_checkpoints_seldom_finds_a_leak_where_there_is_none():
    names = [f"step-{step}/{attack}" for step in range(10) for attack in ("a", "b", "c")]
    found = [
        reach_verdict(audit(dict.fromkeys(names, 0.0), n=60, seed=s)).finding for s in range(40)
    ]
    # At most 5 % of such audits: 8 of 40 would be seen once in 4,000 trials.
    assert found.count("no_leak_found") >= 33


def in_groups(seed, shift=0.0, groups=30, size=20, split_by_group=True):
    """A run on groups of records, whose scores are half the group's and half their own."""
    draws = np.random.default_rng(seed)
    is_member = np.arange(2 * groups) < groups
    shared = draws.normal(size=(2 * groups, 1)) + shift * is_member[:, None]
    scores = shared + draws.normal(size=(2 * groups, size))
    names = {"target": "tuned", "attack": "loss"}
    of_records = measure(scores.ravel(), np.repeat(is_member, size), **names)
    of_groups = measure(scores.mean(axis=1), is_member, **names)
    return audit(
        {},
        metrics=[of_records],
        group_metrics=as_groups([of_groups]),
        split_by_group=split_by_group,
    )


@pytest.mark.long
def test_chance_is_that_of_groups_where_groups_were_split():
    """A document is in the training data or is not, and its passages are alike: 600 are not 600."""
    findings = {
        by_group: [
            reach_verdict(in_groups(seed, split_by_group=by_group)).finding for seed in range(60)
        ].count("no_leak_found")
        for by_group in (True, False)
    }
    assert findings[True] >= 52  # fewer once in 400 times at 5 %
    assert findings[False] <= 45, "as single records they would often be called a leak"


def test_leak_and_what_was_missed_are_told_by_groups_where_groups_were_split():
    leak = reach_verdict(in_groups(0, shift=2.0))
    assert leak.finding in ("leaks", "leaks_strongly")
    assert any("split by groups" in limit for limit in leak.limits)
    mixed = reach_verdict(in_groups(0, shift=2.0, split_by_group=False))
    assert any("tests against chance count records" in limit for limit in mixed.limits)
    none = in_groups(1)
    high = none.group_metrics[0].auc.high
    assert high > none.metrics[0].auc.high
    assert f"an AUC of up to {high:.2f}" in reach_verdict(none).sentence
    unknown = none.model_copy(update={"group_metrics": []})
    assert reach_verdict(unknown).finding == "not_measurable"
    assert "No attack could be tested" in reach_verdict(unknown).sentence
    assert "could not be tested" not in reach_verdict(none).sentence


def test_worst_of_several_checkpoints_is_named_and_they_are_counted():
    strengths = {"step-1/loss": 0.0, "step-2/loss": 1.5, "step-3/loss": 3.5}
    verdict = reach_verdict(audit(strengths))
    assert verdict.sentence.startswith("2 of 3 checkpoints leak. The worst is step-3: loss names ")
    findings = {entry.target: entry.finding for entry in verdict.targets}
    assert findings["step-1"] == "no_leak_found"
    assert findings["step-3"] == "leaks_strongly"


def test_checkpoint_that_could_not_be_measured_is_not_counted_among_those_without_a_leak():
    result = audit({"one/loss": 0.0, "two/loss": 0.0})
    nothing = NotMeasured(
        target="three", attack="loss", n_members=0, n_non_members=0, n_unscored=300, reason="none"
    )
    sentences = [
        reach_verdict(result.model_copy(update={"metrics": metrics})).sentence
        for metrics in (
            result.metrics, [*result.metrics, nothing], [result.metrics[0], nothing],
        )
    ]  # fmt: skip
    for sentence, where in zip(
        sentences,
        (
            "in any of 2 checkpoints with",
            "in any of the 2 of 3 checkpoints that could be measured with",
            "in the only one of 2 checkpoints that could be measured with",
        ),
        strict=True,
    ):
        assert sentence.startswith(f"No leak was found {where} 150 members")


def test_members_that_score_lower_by_more_than_chance_are_a_leak():
    verdict = reach_verdict(audit({"tuned/loss": -1.5, "tuned/zlib": -0.8}))
    assert verdict.finding == "leaks"
    assert verdict.targets[0].attack == "loss"
    assert "loss scores a member below a non-member in" in verdict.sentence
    assert "in the other direction" in verdict.sentence
    both = reach_verdict(audit({"tuned/loss": -1.5, "tuned/zlib": 0.8}))
    assert both.targets[0].attack == "zlib", "an attack that works as it is comes first"


def test_the_attack_that_is_told_of_a_strong_leak_is_the_one_that_is_strong():
    result = audit({"tuned/rate": 2.0, "tuned/area": 1.9}, n=300, seed=1)
    by_name = {metrics.attack: metrics for metrics in result.metrics}
    at = by_name["rate"].tpr[1]
    weak = at.estimate.model_copy(update={"low": 0.05, "limits": None})
    tpr = [by_name["rate"].tpr[0], at.model_copy(update={"estimate": weak})]
    rate = by_name["rate"].model_copy(
        update={"tpr": tpr, "auc": LimitedEstimate(value=0.75, low=0.7, high=0.8)}
    )
    area = _with_rate(by_name["area"], 0.05)
    for metrics, finding, told in (
        ([rate], "leaks", "rate"),
        ([rate, area], "leaks_strongly", "area"),
    ):
        verdict = reach_verdict(result.model_copy(update={"metrics": metrics}))
        assert (verdict.finding, verdict.targets[0].attack) == (finding, told)


def test_combination_of_attacks_does_not_lead():
    strengths = {"tuned/loss": 1.0, "tuned/all": 4.0}
    verdict = reach_verdict(audit(strengths, combined=("all",)))
    assert verdict.targets[0].attack == "loss"
    assert "leaks. loss " in verdict.sentence


def test_combination_with_a_setting_or_a_name_of_its_own_does_not_lead_either():
    result = audit({"tuned/loss": 1.0, "tuned/learned(folds=10)": 4.0})
    cards = [card for card in result.attacks if card.name == "loss"]
    cards.append(
        AttackCard(
            name="learned", title="t", source="s", formula="f", labels=["learned(folds=10)"],
            combines=True,
        )
    )  # fmt: skip
    assert reach_verdict(result).targets[0].attack == "learned(folds=10)"
    told = reach_verdict(result.model_copy(update={"attacks": cards}))
    assert told.targets[0].attack == "loss"


def test_attack_that_learns_from_records_leaks_by_a_high_auc_alone():
    """Cross-fitted on noise, it has an AUC below 0.5: members of one fold are missing in others."""
    for strength, finding in ((-1.5, "no_leak_found"), (1.5, "leaks_strongly")):
        result = audit({"tuned/network": strength}, n=300)
        cards = [card.model_copy(update={"learns": True}) for card in result.attacks]
        assert reach_verdict(result.model_copy(update={"attacks": cards})).finding == finding


def test_leak_that_names_few_members_with_confidence_is_found_by_its_area():
    result = audit({"tuned/luck": 0.0, "tuned/loss": 0.9}, seed=3)
    metrics = [_without_a_tail(m) for m in result.metrics]
    verdict = reach_verdict(result.model_copy(update={"metrics": metrics}))
    assert verdict.finding == "leaks"
    assert verdict.targets[0].attack == "loss"
    assert "scores a member above a non-member in" in verdict.sentence


def test_a_rate_that_was_not_shown_to_be_low_is_not_called_low():
    """By groups, 60 of them, a rate at 1 % cannot be resolved; on records it is a third."""
    (loss,) = audit({"tuned/loss": 1.5}, n=400).metrics
    (by_group,) = audit({"tuned/loss": 2.0}, n=30).metrics
    grouped = audit(
        {},
        metrics=[loss],
        group_metrics=as_groups([_without_a_tail(by_group)]),
        split_by_group=True,
    )
    sentence = reach_verdict(grouped).sentence
    assert "How many groups of members it names with few false positives could not be" in sentence
    rate = by_group.tpr[0].estimate
    for high, told in (
        (0.06, "it names few groups of members at 1 % FPR: 1.0 %"),
        (0.3, "it names 1.0 % [0.0, 30.0] of groups of members at 1 % FPR"),
    ):
        low = rate.model_copy(update={"value": 0.01, "low": 0.0, "high": high})
        at = by_group.tpr[1].model_copy(update={"estimate": low, "resolvable": True})
        entry = by_group.model_copy(update={"tpr": [at], "above_all": 0})
        few = grouped.model_copy(update={"group_metrics": as_groups([entry])})
        assert f"On all groups {told}" in reach_verdict(few).sentence


def _without_a_tail(metrics):
    """An attack of the same AUC whose rates are what guessing reaches."""
    tpr = [
        at
        if at.estimate is None
        else at.model_copy(
            update={"estimate": at.estimate.model_copy(update={"value": at.max_fpr})}
        )
        for at in metrics.tpr
    ]
    return metrics.model_copy(update={"tpr": tpr, "above_all": 0})


def _with_rate(metrics, rate):
    at = metrics.tpr[1]
    low = at.model_copy(
        update={"estimate": at.estimate.model_copy(update={"value": rate, "low": 0.0})}
    )
    return metrics.model_copy(update={"tpr": [metrics.tpr[0], low, metrics.tpr[2]]})


def test_unfinished_audit_has_no_verdict():
    finished = audit({"tuned/loss": 3.0})
    verdict = reach_verdict(finished.model_copy(update={"complete": False}))
    assert verdict.finding == "incomplete"
    so_far = reach_verdict(finished).sentence
    assert verdict.sentence == (
        f"The audit is not finished: some answers are missing. So far: {so_far}"
    )
    failed = [FailedTarget(name="other", reason="no weights")]
    verdict = reach_verdict(finished.model_copy(update={"complete": False, "failed": failed}))
    assert "not finished: 1 checkpoint failed. So far: tuned leaks" in verdict.sentence
    answered_in_errors = reach_verdict(finished.model_copy(update={"failed": failed}))
    assert answered_in_errors == verdict
    nothing = reach_verdict(finished.model_copy(update={"complete": False, "metrics": []}))
    assert nothing.sentence == "The audit is not finished: some answers are missing."


def test_audit_without_labels_is_not_measurable():
    nothing = NotMeasured(
        target="tuned", attack="loss", n_members=0, n_non_members=0, n_unscored=0, reason="none"
    )
    for metrics in ([], [nothing]):
        verdict = reach_verdict(audit({"tuned/loss": 1.0}, metrics=metrics))
        assert verdict.finding == "not_measurable"
        assert verdict.sentence.startswith("Nothing could be measured on 150 members and 150 non-")


def test_audit_without_labels_says_whose_scores_to_read():
    ez = AttackCard(name="ez", title="EZ-MIA", source="s", formula="f")
    made = ReferenceCard(target="t", name="prompted", kind="self_prompt", model="base")
    plain = audit({"tuned/loss": 1.0}, metrics=[], attacks=[ez])
    said = reach_verdict(plain.model_copy(update={"references": [made]})).sentence
    assert "Read those of ez@prompted first" in said
    assert "Read those" not in reach_verdict(plain).sentence


def test_no_leak_is_claimed_where_the_records_differ_without_a_model():
    run = audit({"tuned/ratio": 3.0}, shift=shifted(), excess_over_blind=[excess(0.2, 0.5)])
    verdict = reach_verdict(run)
    assert verdict.finding == "shift_suspected"
    assert {entry.finding for entry in verdict.targets} == {"shift_suspected"}
    assert "the best guess, by a bag of words, has an AUC of 0.70 [0.65, 0.75]" in verdict.sentence
    assert "No attack is stronger than that guess" in verdict.sentence
    assert "not show that nothing leaks" in verdict.limits[0]


def test_what_an_attack_adds_to_a_shift_is_told_unless_chance_explains_it():
    for value, p_value, told in ((0.2, 0.001, True), (0.2, 0.5, False), (-0.2, 0.001, False)):
        run = audit({"tuned/ratio": 3.0}, shift=shifted())
        run = run.model_copy(update={"excess_over_blind": [excess(value, p_value)]})
        assert ("ratio on tuned gains 0.200 of AUC" in reach_verdict(run).sentence) is told


def test_unchecked_shift_is_a_limit_of_the_verdict_and_a_checked_one_is_not():
    for shift, said in (
        (None, True),
        (shifted("not_checked"), True),
        (shifted("no_shift_found"), False),
    ):
        verdict = reach_verdict(audit({"tuned/ratio": 3.0}, shift=shift))
        assert verdict.finding == "leaks_strongly"
        assert any("was not checked" in limit for limit in verdict.limits) is said


def test_a_chance_too_small_for_a_number_is_not_written_as_none():
    attack = audit({"tuned/loss": 3.0}).metrics[0]
    said = what_it_does(attack, ChanceTest("top", None, p_value=0.0, error=0.01), None)
    assert "The chance that guessing does so is < 1e-300." in said


def test_rate_on_few_non_members_is_a_limit_of_the_verdict():
    verdict = reach_verdict(made_up_result(made_up_scores(n_non_members=290)))
    assert any("rests on 2 non-members" in limit for limit in verdict.limits)


@pytest.mark.parametrize(("members", "others", "fpr"), [(4, 5, 0.2), (3, 6, 0.34), (5, 3, 0.34)])
def test_chance_of_a_rate_is_that_over_all_orders(members, others, fpr):
    """Every order of members and non-members is as likely where nothing leaks."""
    size = members + others
    reached = dict.fromkeys(range(members + 1), 0)
    for places in itertools.combinations(range(size), members):
        is_member = np.isin(np.arange(size), places)
        hits = round(tpr_at_fpr(roc_curve(np.arange(size, 0.0, -1), is_member), fpr) * members)
        for least in range(hits + 1):
            reached[least] += 1
    for least, count in reached.items():
        chance = chance_of_rate(least / members, fpr, members, others)
        assert chance == pytest.approx(count / comb(size, members, exact=True))


def test_chance_of_an_auc_is_that_of_drawn_orders():
    draws = np.random.default_rng(0)
    is_member = np.arange(70) < 30
    areas = []
    for _ in range(4_000):
        ranks = draws.permutation(70)
        areas.append((ranks[is_member].sum() - 30 * 29 / 2) / (30 * 40))
    for auc in (0.5, 0.55, 0.6, 0.65):
        drawn = np.mean(np.array(areas) >= auc)
        assert chance_of_auc(auc, 30, 40) == pytest.approx(drawn, abs=0.02)


def test_verdict_stays_with_the_result(result):
    judged = result.model_copy(update={"verdict": reach_verdict(result)})
    assert RunResult.model_validate_json(judged.model_dump_json()).verdict == judged.verdict
