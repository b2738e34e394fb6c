"""The attack that is told of is chosen on other records, a leak in the tail is found, and what is
said of either holds its error."""

import numpy as np
import pytest
from scipy import stats

from raymia.metrics.measuring import measure
from raymia.results.chance import Chance
from raymia.results.gate import decide_again
from raymia.results.power import power_of_auc, power_of_rate
from raymia.results.ranking import held_out_area, held_out_rate, rank
from raymia.results.result import AttackCard, RecordCounts, RunResult
from raymia.results.verdict import reach_verdict


def run_of(metrics, n_members, n_non_members):
    return RunResult(
        name="audit", created="2026-11-21T22:00:00Z", versions={}, seed=0, code_version="1",
        metrics=metrics, complete=True, audit_yaml="", seconds=1.0,
        records=RecordCounts(
            members=n_members, non_members=n_non_members, candidates=0, set_aside=0
        ),
        attacks=[
            AttackCard(name=name, title="t", source="s", formula="f")
            for name in {entry.attack for entry in metrics}
        ],
    )  # fmt: skip


def made_up(draws, n_members, n_non_members, attacks, shift=0.0):
    """Attacks of one true strength, on records that each of them scores by itself."""
    is_member = np.arange(n_members + n_non_members) < n_members
    calibration = draws.random(is_member.size) < 0.5
    return [
        measure(
            draws.normal(size=is_member.size) + shift * is_member, is_member,
            target="t", attack=str(number), calibration=calibration, fprs=(0.1, 0.01),
        )
        for number in range(attacks)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1])
def test_thirty_members_above_all_non_members_are_a_leak(seed):
    """Of 10,000 + 10,000 records; guessing does so once in 2^30 times."""
    draws = np.random.default_rng(seed)
    is_member = np.arange(20_000) < 10_000
    scores = draws.normal(size=is_member.size)
    scores[:30] = scores.max() + 1 + draws.random(30)
    verdict = reach_verdict(
        run_of([measure(scores, is_member, target="t", attack="loss")], 10_000, 10_000)
    )
    assert verdict.finding == "leaks"
    assert "loss scores 30 of 10,000 members above every one of 10,000 non-members" in (
        verdict.sentence
    )


@pytest.mark.long
def test_the_tests_of_an_attack_share_its_error():
    """Each of them holds its own part, so together they hold it; on discrete rates with less."""
    draws, shown, audits = np.random.default_rng(5), 0, 120
    for _ in range(audits):
        (metrics,) = made_up(draws, 60, 200, 1)
        chance = Chance.of(run_of([metrics], 60, 200))
        tests = chance.tests(metrics)
        assert [test.of for test in tests] == ["area", "rate", "rate", "top"]
        assert sum(test.error for test in tests) == pytest.approx(0.05)
        shown += any(test.shows for test in tests)
    assert shown <= stats.binom.isf(1e-3, audits, 0.05)


@pytest.mark.long
def test_the_best_of_twenty_attacks_is_told_with_its_true_rates():
    """All have a rate of 5 % at 1 % FPR; the best on all records would be told with 10 %."""
    draws, rates, accused, flattered = np.random.default_rng(6), [], [], []
    shift = stats.norm.isf(0.01) - stats.norm.isf(0.05)
    for _ in range(12):
        metrics = made_up(draws, 500, 500, 20, shift)
        leader = rank(metrics)[0].measured[0]
        at = leader.tpr[1].held_out
        # What the threshold comes to on all records that there could be.
        rates.append(at.tpr.value - stats.norm.sf(at.threshold - shift))
        accused.append(at.fpr.value - stats.norm.sf(at.threshold))
        assert held_out_rate(leader, 0.01) == at.tpr
        flattered.append(max(m.tpr[1].estimate.value for m in metrics))
    error = 4 / np.sqrt(12)
    assert abs(np.mean(rates)) < error * np.sqrt(0.06 * 0.94 / 250)
    assert abs(np.mean(accused)) < error * np.sqrt(0.012 / 250)
    assert np.mean(flattered) > 0.08


@pytest.mark.long
def test_the_area_of_the_best_of_twenty_is_not_flattered_either():
    draws, told = np.random.default_rng(7), []
    for _ in range(15):
        metrics = made_up(draws, 60, 60, 20)
        told.append(held_out_area(rank(metrics)[0].measured[0]).value)
    assert abs(np.mean(told) - 0.5) < 4 * np.sqrt(61 / (12 * 30 * 30)) / np.sqrt(15)


def test_runs_of_earlier_versions_are_ranked_on_all_records_and_said_to_be_flattered():
    metrics = [
        m.model_copy(update={"held_out_auc": None, "above_all": None})
        for m in made_up(np.random.default_rng(8), 300, 300, 4, 1.0)
    ]
    ranking = rank(metrics)[0]
    rates = [m.tpr[1].estimate.value for m in ranking.measured]
    assert rates == sorted(rates, reverse=True)
    verdict = reach_verdict(run_of(metrics, 300, 300))
    assert any("so its number is flattered" in limit for limit in verdict.limits)


@pytest.mark.long
def test_power_is_the_share_of_audits_that_find_the_leak():
    draws, error, audits = np.random.default_rng(9), 0.02, 250
    for auc in (0.55, 0.6):
        shift, found = np.sqrt(2) * stats.norm.ppf(auc), 0
        for _ in range(audits):
            test = stats.mannwhitneyu(draws.normal(size=200) + shift, draws.normal(size=150))
            found += test.pvalue <= error
        told = power_of_auc(auc, 200, 150, error)
        assert found / audits == pytest.approx(told, abs=0.1)
    shift, found = stats.norm.isf(0.1) - stats.norm.isf(0.25), 0
    for _ in range(audits):
        (metrics,) = made_up(draws, 150, 200, 1, shift)
        of_rate = Chance.of(run_of([metrics], 150, 200)).tests(metrics)[1]
        found += of_rate.p_value <= error
    assert found / audits == pytest.approx(power_of_rate(0.25, 0.1, 150, 200, error), abs=0.1)


def strong_audits(draws, audits, rates):
    """How many audits of 1,000 + 1,000 records are called strong, whose attacks have these true
    positive rates at 1 % false positives."""
    is_member, found = np.arange(2_000) < 1_000, 0
    for _ in range(audits):
        metrics = [
            measure(
                draws.normal(size=2_000) + shift * is_member, is_member, target="t",
                attack=str(number), fprs=(0.01,),
            )
            for number, shift in enumerate(stats.norm.isf(0.01) - stats.norm.isf(rates))
        ]  # fmt: skip
        found += reach_verdict(run_of(metrics, 1_000, 1_000)).finding == "leaks_strongly"
    return found


@pytest.mark.long
@pytest.mark.parametrize("attacks", [1, 20])
def test_leaks_that_are_not_strong_are_seldom_called_so(attacks):
    """However many were tried: ten times what guessing reaches is 10 %, and all are below it."""
    audits = 800 // attacks
    found = strong_audits(np.random.default_rng(12), audits, np.linspace(0.09, 0.099, attacks))
    assert found <= stats.binom.isf(1e-3, audits, 0.05)


@pytest.mark.long
def test_a_leak_that_is_strong_is_called_so():
    """One of twenty attacks names a quarter of the members; the others name what guessing does."""
    rates = np.full(20, 0.01)
    rates[7] = 0.25
    assert strong_audits(np.random.default_rng(13), 10, rates) == 10


def test_a_leak_that_is_strong_by_its_rate_alone_is_called_so():
    """A quarter of the members stand out, and the others score as non-members do."""
    draws, is_member = np.random.default_rng(14), np.arange(2_000) < 1_000
    scores = draws.normal(size=2_000)
    others = [measure(draws.normal(size=2_000), is_member, target="t", attack=str(number))
              for number in range(7)]  # fmt: skip
    scores[:250] += 9.0
    leak = measure(scores, is_member, target="t", attack="loss")
    assert leak.auc.high < 0.8
    verdict = reach_verdict(run_of([*others, leak], 1_000, 1_000))
    assert (verdict.finding, verdict.targets[0].attack) == ("leaks_strongly", "loss")


def test_a_leak_that_is_strong_at_a_tenth_of_a_percent_is_called_so():
    """Six members in a hundred stand out: 56 times guessing at 0.1 %, six times at 1 %."""
    draws, is_member = np.random.default_rng(15), np.arange(20_000) < 10_000
    scores = draws.normal(size=20_000)
    scores[:600] += 9.0
    leak = measure(scores, is_member, target="t", attack="loss")
    assert leak.tpr[1].estimate.high < 0.1
    assert reach_verdict(run_of([leak], 10_000, 10_000)).finding == "leaks_strongly"
    few = leak.model_copy(update={"tpr": leak.tpr[:2]})
    assert reach_verdict(run_of([few], 10_000, 10_000)).finding == "leaks"


@pytest.mark.long
def test_leaks_that_are_not_strong_at_either_budget_are_seldom_called_so():
    """Of 9.5 % at 1 % false positives and 0.95 % at 0.1 %."""
    draws, is_member, found, audits = np.random.default_rng(16), np.arange(12_000) < 6_000, 0, 200
    top, next_ = stats.norm.isf([0.001, 0.01])
    for _ in range(audits):
        scores = draws.normal(size=12_000)
        place = draws.random(6_000)
        # Members are told apart at these two thresholds, and nowhere else.
        scores[:6_000] = np.where(
            place < 0.0095, top + 1 + draws.random(6_000),
            np.where(place < 0.095, draws.uniform(next_, top, 6_000), scores[:6_000]),
        )  # fmt: skip
        metrics = measure(scores, is_member, target="t", attack="a", fprs=(0.01, 0.001))
        found += reach_verdict(run_of([metrics], 6_000, 6_000)).finding == "leaks_strongly"
    assert found <= stats.binom.isf(1e-3, audits, 0.05)


@pytest.mark.long
def test_what_is_not_ruled_out_is_above_the_truth_in_nineteen_of_twenty_audits():
    """An AUC of 0.55 and a rate of 13 % at 10 % FPR in every one of eight attacks."""
    draws, audits, wrong = np.random.default_rng(10), 40, 0
    shift = np.sqrt(2) * stats.norm.ppf(0.53)
    for _ in range(audits):
        metrics = made_up(draws, 100, 100, 8, shift)
        wrong += max(m.auc.high for m in metrics) < 0.53
    assert wrong <= 2


@pytest.mark.long
def test_epsilon_is_not_shown_where_nothing_leaks():
    """The highest bound of eight attacks and two methods is above 0 in every third audit."""
    draws, shown, highest, audits = np.random.default_rng(11), 0, 0, 30
    for _ in range(audits):
        is_member = draws.random(300) < 0.5
        metrics = [
            measure(
                draws.normal(size=300), is_member, target="t", attack=str(n), randomized=True,
                delta=0.0, calibration=np.arange(300) < 150, fprs=(),
            )
            for n in range(8)
        ]  # fmt: skip
        (outcome,) = decide_again(run_of(metrics, 150, 150), ["any.epsilon > 0"])
        shown += outcome.status == "failed"
        highest += max(bound.value for m in metrics for bound in m.epsilon) > 0
    assert shown <= stats.binom.isf(1e-3, audits, 0.05)
    assert highest > shown
