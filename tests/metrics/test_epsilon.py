"""Bounds of epsilon: known privacy is not exceeded more often than stated, and formulas hold."""

import math
from functools import cache

import numpy as np
import pytest
from scipy import integrate, stats

from raymia.metrics.epsilon import (
    Guesses,
    contradicts_gaussian,
    epsilon_held_out,
    epsilon_of_counts,
    epsilon_of_gaussian,
    epsilon_one_run,
    epsilon_one_run_gaussian,
    guess,
    one_run_p_value,
)
from raymia.metrics.held_out import Halves
from raymia.metrics.measuring import measure

DELTA = 1e-5


def coins(draws, n=400):
    """Each record is in or out, and each is in one half or the other."""
    return draws.random(n) < 0.5, draws.random(n) < 0.5


def gaussian(draws, mu, is_member):
    return draws.normal(size=is_member.size) + mu * is_member


def randomized_response(draws, epsilon, is_member):
    """The membership itself, turned around with a chance of 1 / (1 + e^epsilon)."""
    honest = draws.random(is_member.size) < 1 / (1 + math.exp(-epsilon))
    return np.where(honest, is_member, ~is_member).astype(float)


def at_most(risk, exceeded):
    """Whether a share of runs is within a risk, but for three standard errors."""
    return np.mean(exceeded) <= risk + 3 * math.sqrt(risk * (1 - risk) / len(exceeded))


@pytest.mark.parametrize("mu", [0.5, 1.0, 3.0])
def test_epsilon_of_the_gaussian_mechanism_equals_the_integral(mu):
    epsilon = epsilon_of_gaussian(mu, DELTA)

    def lost(x):
        return max(0.0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x))

    start = epsilon / mu + mu / 2  # where the one density is e^epsilon times the other
    delta, _ = integrate.quad(lost, start, start + 30, epsabs=1e-14)
    assert delta == pytest.approx(DELTA, rel=1e-4)
    assert epsilon_of_gaussian(0.0, DELTA) == 0.0


def test_counts_give_the_published_formula():
    """ln((TPR - delta) / FPR) and ln((TNR - delta) / FNR) of limits at half the risk each."""
    for tp, fp in ((60, 2), (98, 40), (50, 50)):
        tpr = stats.binomtest(tp, 100, alternative="greater").proportion_ci(0.975).low
        fpr = stats.binomtest(fp, 100, alternative="less").proportion_ci(0.975).high
        expected = max(math.log((tpr - DELTA) / fpr), math.log((1 - fpr - DELTA) / (1 - tpr)))
        found = epsilon_of_counts(tp, 100, fp, 100, delta=DELTA, confidence=0.95)
        assert float(found) == pytest.approx(expected)


@pytest.mark.long
def test_held_out_bound_exceeds_the_truth_in_at_most_five_percent():
    draws = np.random.default_rng(0)
    truths = {"gaussian": epsilon_of_gaussian(1.5, DELTA), "response": 1.0}
    for kind, truth in truths.items():
        found = []
        for _ in range(1_000):
            is_member, calibration = coins(draws)
            scores = (
                gaussian(draws, 1.5, is_member)
                if kind == "gaussian"
                else randomized_response(draws, truth, is_member)
            )
            halves = Halves.split(scores, is_member, calibration)
            found.append(epsilon_held_out(halves, delta=DELTA, confidence=0.95).value)
        assert at_most(0.05, np.array(found) > truth), kind
        assert np.median(found) > 0.3, kind


def test_one_run_p_value_is_the_published_sum():
    """Steinke et al. 2023, term by term."""
    m, r, v, epsilon, delta = 500, 60, 45, 0.7, 1e-4
    q = math.exp(epsilon) / (1 + math.exp(epsilon))
    chance = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    beta = sum(chance[v:])
    alpha = max(sum(chance[v - i : v]) / i for i in range(1, v + 1))
    assert one_run_p_value(Guesses(m, r, v), epsilon, delta) == pytest.approx(
        beta + 2 * m * delta * alpha
    )


def test_one_run_bound_without_delta_is_a_limit_of_the_share_of_right_guesses():
    found = epsilon_one_run(Guesses(1_000, 80, 70), delta=0.0, confidence=0.95).value
    share = stats.binomtest(70, 80, alternative="greater").proportion_ci(0.95).low
    assert found == pytest.approx(math.log(share / (1 - share)), abs=2e-3)
    assert epsilon_one_run(Guesses(1_000, 80, 40), delta=0.0, confidence=0.95).value == 0.0


def test_all_hundred_of_hundred_guesses_give_the_papers_figure():
    """Steinke et al. 2023 print the bound of 100 right guesses of 100: ln(1 / (20^0.01 - 1))."""
    found = epsilon_one_run(Guesses(100, 100, 100), delta=0.0, confidence=0.95).value
    assert found == pytest.approx(math.log(1 / (20**0.01 - 1)), abs=2e-3)


def one_run_audits(make, seed, audits=400):
    draws = np.random.default_rng(seed)
    for _ in range(audits):
        is_member, calibration = coins(draws)
        scores = make(draws, is_member)
        yield guess(scores, is_member, calibration, delta=DELTA, confidence=0.95, seed=0)


@pytest.fixture(scope="module")
def gaussian_guesses():
    return [*one_run_audits(lambda draws, is_member: gaussian(draws, 1.5, is_member), seed=2)]


@pytest.mark.long
def test_one_run_bound_exceeds_the_truth_in_at_most_five_percent(gaussian_guesses):
    """A bound exceeds the truth where the truth is contradicted."""
    truth = epsilon_of_gaussian(1.5, DELTA)
    assert at_most(0.05, [one_run_p_value(g, truth, DELTA) <= 0.05 for g in gaussian_guesses])
    said = [one_run_p_value(g, 0.5, DELTA) <= 0.05 for g in gaussian_guesses]
    assert np.mean(said) > 0.5, "and says something"
    response = one_run_audits(lambda draws, m: randomized_response(draws, 1.0, m), seed=3)
    assert at_most(0.05, [one_run_p_value(g, 1.0, DELTA) <= 0.05 for g in response])


def test_gaussian_bound_exceeds_the_truth_in_at_most_five_percent_and_is_tighter(gaussian_guesses):
    @cache
    def contradicted(guesses, mu):
        return contradicts_gaussian(guesses, mu, 0.05)

    assert at_most(0.05, [contradicted(g, 1.5) for g in gaussian_guesses])
    assert np.mean([contradicted(g, 0.5) for g in gaussian_guesses]) > 0.5, "and says something"
    typical = max(gaussian_guesses, key=gaussian_guesses.count)
    simple = epsilon_one_run(typical, delta=DELTA, confidence=0.95)
    tight = epsilon_one_run_gaussian(typical, delta=DELTA, confidence=0.95)
    assert simple.value < tight.value < epsilon_of_gaussian(1.5, DELTA)
    assert tight.value == pytest.approx(epsilon_of_gaussian(tight.mu, DELTA))


def test_gaussian_rule_equals_a_transcription_of_the_papers_algorithm():
    """Mahloujifar et al. 2025, the arrays h and r filled from the number of right guesses down."""

    def passes(mu, m, right, guesses, level):
        h, r = np.zeros(right + 1), np.zeros(right + 1)
        r[right] = level * right / m
        h[right] = level * (guesses - right) / m
        for i in range(right - 1, -1, -1):
            h[i] = max(h[i + 1], stats.norm.cdf(stats.norm.ppf(r[i + 1]) - mu))
            r[i] = r[i + 1] + i / (guesses - i) * (h[i] - h[i + 1])
        return r[0] + h[0] <= guesses / m

    for m, g, v in ((200, 60, 50), (200, 60, 35), (100, 100, 80)):
        for mu in (0.0, 0.2, 0.5, 1.0, 2.0):
            assert contradicts_gaussian(Guesses(m, g, v), mu, 0.05) != passes(mu, m, v, g, 0.05)


def test_order_of_tied_records_tells_no_membership():
    """Members stand first in an audit; guesses among ties must not use it."""
    draws = np.random.default_rng(4)
    above_chance = []
    for seed in range(300):
        is_member = np.arange(400) < draws.binomial(400, 0.5)
        found = guess(
            np.zeros(400), is_member, draws.random(400) < 0.5,
            delta=DELTA, confidence=0.95, seed=seed,
        )  # fmt: skip
        above_chance.append(found.n_correct - found.n_guesses / 2)
    assert abs(np.mean(above_chance)) < 4 * np.std(above_chance) / math.sqrt(300)
    assert np.std(above_chance) > 0


def test_records_without_a_score_are_not_guessed_and_count():
    is_member = np.arange(100) % 2 == 0
    scores = np.where(np.arange(100) < 50, np.nan, is_member * 1.0)
    calibration = np.arange(100) % 4 < 2
    found = guess(scores, is_member, calibration, delta=0.0, confidence=0.95, seed=0)
    assert found.n_records == 50
    assert found.n_correct == found.n_guesses <= 25


def test_one_run_bounds_are_given_only_where_inclusion_was_randomized():
    draws = np.random.default_rng(5)
    is_member, _ = coins(draws)
    scores = gaussian(draws, 3.0, is_member)

    def methods(**settings):
        found = measure(scores, is_member, target="t", attack="a", **settings)
        return [bound.method for bound in found.epsilon]

    assert methods() == ["held_out"]
    assert methods(randomized=True) == ["held_out", "one_run", "one_run_gaussian"]
    assert methods(randomized=True, delta=0.0) == ["held_out", "one_run"]
