"""Intervals equal scipy's and hand-made ones; the bootstrap equals drawing records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raymia.metrics.intervals import (
    auc_interval,
    clopper_pearson,
    lower_limit,
    mean_of_two_rates,
    percentile_interval,
    resampled_tpr,
    upper_limit,
    wilson,
)
from raymia.metrics.roc import roc_curve, tpr_at_fpr


def made_up_audit(seed, n_members, n_non_members, shift=1.0, decimals=None):
    draws = np.random.default_rng(seed)
    scores = np.concatenate([draws.normal(shift, 1, n_members), draws.normal(0, 1, n_non_members)])
    if decimals is not None:
        scores = scores.round(decimals)
    is_member = np.arange(scores.size) < n_members
    order = draws.permutation(scores.size)
    return scores[order], is_member[order]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_intervals_of_a_rate_equal_scipys(of, data, confidence):
    hits = data.draw(st.integers(0, of))
    test = stats.binomtest(hits, of)
    for found, method in ((clopper_pearson, "exact"), (wilson, "wilson")):
        expected = test.proportion_ci(confidence, method)
        assert found(hits, of, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.data())
def test_one_sided_limits_equal_scipys(of, data):
    hits = data.draw(st.integers(0, of))
    least = stats.binomtest(hits, of, alternative="greater").proportion_ci(0.9).low
    most = stats.binomtest(hits, of, alternative="less").proportion_ci(0.9).high
    assert float(lower_limit(hits, of, 0.9)) == pytest.approx(least, abs=1e-9)
    assert float(upper_limit(hits, of, 0.9)) == pytest.approx(most, abs=1e-9)


def test_mean_of_two_rates_is_newcombes_published_interval():
    # Newcombe 1998, table II, example (a), method 10: 56/70 - 48/80 has [0.0524, 0.3339]. The
    # mean of p and 1 - q is half of 1 + p - q.
    low, high = mean_of_two_rates((56, 70), (80 - 48, 80), 0.95)
    assert (2 * low - 1, 2 * high - 1) == pytest.approx((0.0524, 0.3339), abs=1e-4)


@pytest.mark.parametrize("auc", [0.0, 0.5, 1.0])
def test_auc_without_a_variance_has_an_interval_all_the_same(auc):
    low, high = auc_interval(auc, 0.0, 40, 0.95)
    assert 0.0 <= low <= auc <= high <= 1.0
    assert high - low > 0.05
    assert (low, high) == clopper_pearson(40 * auc, 40, 0.95)


def test_interval_of_an_auc_is_normal_on_the_logit():
    low, high = auc_interval(0.9, 0.02**2, 100, 0.95)
    z = stats.norm.ppf(0.975) * 0.02 / 0.09
    assert np.log(low / (1 - low)) == pytest.approx(np.log(9) - z)
    assert np.log(high / (1 - high)) == pytest.approx(np.log(9) + z)


def brute_force(scores, is_member, max_fpr, resamples, seed):
    """Draw the records of each resample and measure it by itself."""
    draws = np.random.default_rng(seed)
    members, others = scores[is_member], scores[~is_member]
    labels = np.arange(scores.size) < members.size
    found = []
    for _ in range(resamples):
        drawn = [draws.choice(members, members.size), draws.choice(others, others.size)]
        found.append(tpr_at_fpr(roc_curve(np.concatenate(drawn), labels), max_fpr))
    return np.array(found)


@pytest.mark.parametrize(
    ("n_members", "n_non_members", "max_fpr", "decimals"),
    [
        (37, 53, 0.02, None),  # one false positive
        (37, 53, 0.2, None),
        (60, 41, 0.1, 1),  # many small ties
        (30, 30, 0.3, 0),  # a handful of scores in all
        (15, 12, 0.05, None),  # none allowed
    ],
)
def test_bootstrap_has_the_distribution_of_drawing_records(
    n_members, n_non_members, max_fpr, decimals
):
    scores, is_member = made_up_audit(3, n_members, n_non_members, decimals=decimals)
    drawn = brute_force(scores, is_member, max_fpr, 3_000, seed=1)
    curve = roc_curve(scores, is_member)
    found = resampled_tpr(curve, max_fpr, resamples=100_000, seed=2)
    # Both are multiples of 1/m: the chi-square test of the counts is exact enough, and unlike
    # Kolmogorov and Smirnov's keeps its power with ties.
    cells = np.arange(n_members + 1)
    expected = np.bincount(np.rint(found * n_members).astype(int), minlength=cells.size) / 100_000
    counted = np.bincount(np.rint(drawn * n_members).astype(int), minlength=cells.size)
    assert counted[expected == 0].sum() <= 2
    common = expected * drawn.size >= 5
    rare = ~common
    observed = np.append(counted[common], counted[rare].sum())
    wanted = np.append(expected[common], expected[rare].sum()) * drawn.size
    if wanted[-1] < 5:
        observed, wanted = observed[:-1], wanted[:-1]
    test = stats.chisquare(observed, wanted * observed.sum() / wanted.sum())
    assert test.pvalue > 1e-3
    assert abs(drawn.mean() - found.mean()) < 4 * drawn.std() / np.sqrt(drawn.size)


def test_seed_decides_everything():
    curve = roc_curve(*made_up_audit(5, 50, 50))
    first, again, other = (resampled_tpr(curve, 0.1, resamples=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_two_attacks_see_the_same_draws():
    scores, is_member = made_up_audit(6, 50, 50)
    one, stronger = roc_curve(scores, is_member), roc_curve(scores + is_member, is_member)
    same_ranks = roc_curve(np.exp(scores), is_member)

    def drawn(curve):
        return resampled_tpr(curve, 0.1, resamples=200, seed=1)

    np.testing.assert_array_equal(drawn(one), drawn(same_ranks))
    assert np.all(drawn(stronger) >= drawn(one)), "one draw, two attacks: never crossed by chance"


def test_higher_confidence_gives_a_wider_interval():
    values = np.arange(1001) / 1000
    assert percentile_interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert percentile_interval(values, 0.5) == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        percentile_interval(np.zeros(3), confidence)


def test_impossible_settings_are_refused():
    curve = roc_curve(*made_up_audit(7, 5, 5))
    with pytest.raises(ValueError, match="resamples"):
        resampled_tpr(curve, 0.1, resamples=0, seed=0)
    with pytest.raises(ValueError, match="max_fpr"):
        resampled_tpr(curve, 1.5, resamples=10, seed=0)
