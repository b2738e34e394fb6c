"""DeLong's variance against the sum over all pairs, and the paired test against its null."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from raymia.metrics.delong import auc_difference, auc_spread_of, auc_variance, placements
from raymia.metrics.roc import roc_curve


def pairs(scores, is_member):
    """1 where the member is above the non-member, 1/2 where they tie: [members, non-members]."""
    members, others = scores[is_member][:, None], scores[~is_member][None, :]
    return (members > others) + 0.5 * (members == others)


def covariance(first, second):
    """DeLong, DeLong and Clarke-Pearson 1988, equations 4 to 6, pair by pair."""
    total = 0.0
    for axis, size in ((1, first.shape[0]), (0, first.shape[1])):
        one, two = first.mean(axis=axis), second.mean(axis=axis)
        total += np.sum((one - first.mean()) * (two - second.mean())) / (size - 1) / size
    return total


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(2, 20), st.sampled_from([0, 1, 9]))
def test_variance_equals_the_sum_over_pairs(seed, n_members, n_non_members, decimals):
    draws = np.random.default_rng(seed)
    scores = draws.normal(size=n_members + n_non_members).round(decimals)
    is_member = draws.permutation(np.arange(scores.size) < n_members)
    found = placements(scores, is_member)
    expected = covariance(pairs(scores, is_member), pairs(scores, is_member))
    assert found.auc == pytest.approx(roc_auc_score(is_member, scores))
    assert auc_variance(found) == pytest.approx(expected, abs=1e-12)
    assert auc_spread_of(roc_curve(scores, is_member)).variance == pytest.approx(
        expected, abs=1e-12
    )
    np.testing.assert_allclose(found.members, pairs(scores, is_member).mean(axis=1))
    np.testing.assert_allclose(found.non_members, pairs(scores, is_member).mean(axis=0))


def test_difference_equals_the_one_over_pairs():
    draws = np.random.default_rng(0)
    is_member = np.arange(70) < 30
    one = (draws.normal(size=70) + is_member).round(1)
    two = one + draws.normal(size=70).round(1)
    found = auc_difference(one, two, is_member)
    first, second = pairs(one, is_member), pairs(two, is_member)
    variance = covariance(first, first) + covariance(second, second) - 2 * covariance(first, second)
    by_pair = first - second
    parts = by_pair.mean(axis=1).var(ddof=1) / 30, by_pair.mean(axis=0).var(ddof=1) / 40
    degrees = variance**2 / (parts[0] ** 2 / 29 + parts[1] ** 2 / 39)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.high - found.low == pytest.approx(
        2 * stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    )
    assert found.p_value == pytest.approx(
        2 * stats.t.sf(abs(found.value) / np.sqrt(variance), degrees)
    )


def test_under_the_null_p_values_of_paired_attacks_are_uniform():
    draws = np.random.default_rng(1)
    is_member = np.arange(200) < 100
    found = []
    for _ in range(1_000):
        shared = draws.normal(size=200) + is_member
        one, two = shared + draws.normal(size=(2, 200))
        found.append(auc_difference(one, two, is_member).p_value)
    assert stats.kstest(found, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("n_members", "n_non_members"), [(5, 5), (10, 10), (10, 100), (20, 20)])
def test_of_few_records_chance_finds_no_more_differences_than_the_level(n_members, n_non_members):
    """Two attacks that guess: by the normal curve 6 to 9 % of pairs would differ at 5 %, and 0.9 to
    2.2 % at a twelfth of it, where the error is divided among twelve attacks."""
    draws, rounds = np.random.default_rng(4), 4_000
    is_member = np.arange(n_members + n_non_members) < n_members
    found = np.array([
        auc_difference(*draws.normal(size=(2, is_member.size)), is_member).p_value
        for _ in range(rounds)
    ])  # fmt: skip
    for level in (0.05, 0.05 / 12):
        by_chance = stats.binom.isf(0.001, rounds, level)
        assert np.count_nonzero(found <= level) <= by_chance


def test_attacks_that_rank_alike_do_not_differ():
    scores, is_member = np.random.default_rng(2).normal(size=40), np.arange(40) < 20
    found = auc_difference(scores, np.exp(scores), is_member)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("n", [3, 5, 6, 7, 10])
def test_difference_that_is_the_same_for_every_record_is_not_certain(n):
    """Each member changes places with the non-member next to it: every placement by 1 / n."""
    is_member = np.arange(2 * n) % 2 == 0
    one = np.arange(2.0 * n, 0.0, -1.0)
    two = one.reshape(n, 2)[:, ::-1].ravel()
    found = auc_difference(one, two, is_member)
    assert found.value == pytest.approx(1 / n)
    assert found.low < 0 < found.high
    assert found.p_value == 2 * 0.5**n


def test_difference_without_variance_is_not_certain():
    is_member = np.arange(20) < 8
    found = auc_difference(is_member.astype(float), np.zeros(20), is_member)
    assert found.value == 0.5
    assert found.low < 0.5 <= found.high
    assert found.p_value == 2 * 0.5**8
