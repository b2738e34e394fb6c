"""Limits of a true positive rate equal a transcription, and know what few records cannot say."""

import numpy as np
import pytest
from scipy import optimize, stats

from raymia.metrics.limits import LADDER, at_error, tpr_limits
from raymia.metrics.measuring import measure
from raymia.metrics.roc import roc_curve


def made_up(seed, n_members, n_non_members, shift=1.0, decimals=9):
    draws = np.random.default_rng(seed)
    is_member = np.arange(n_members + n_non_members) < n_members
    return (draws.normal(size=is_member.size) + shift * is_member).round(decimals), is_member


def by_hand(scores, is_member, max_fpr, error):
    """The mean of Clopper and Pearson's tests over the non-members above the threshold."""
    members, others = scores[is_member], np.sort(scores[~is_member])[::-1]
    n, m = others.size, members.size
    chances = stats.binom.pmf(np.arange(n + 1), n, max_fpr)
    above = [0] + [int((members > score).sum()) for score in others]
    reaching = [int((members >= score).sum()) for score in others] + [m]

    def too_many(rate):
        return chances @ stats.binom.sf(np.array(above) - 1, m, rate) - error

    def too_few(rate):
        return chances @ stats.binom.cdf(np.array(reaching), m, rate) - error

    low = 0.0 if too_many(0.0) > 0 else optimize.brentq(too_many, 0.0, 1.0)
    return low, 1.0 if too_few(1.0) > 0 else optimize.brentq(too_few, 0.0, 1.0)


@pytest.mark.parametrize(
    ("n_members", "n_non_members", "max_fpr", "decimals"),
    [(40, 60, 0.1, 9), (40, 60, 0.1, 0), (7, 60, 0.2, 1), (60, 7, 0.2, 9), (30, 30, 0.02, 9)],
)
def test_limits_equal_a_transcription(n_members, n_non_members, max_fpr, decimals):
    scores, is_member = made_up(1, n_members, n_non_members, decimals=decimals)
    found = tpr_limits(roc_curve(scores, is_member), max_fpr, [0.025, 0.2])
    expected = np.transpose([by_hand(scores, is_member, max_fpr, e) for e in (0.025, 0.2)])
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_limits_of_many_non_members_are_a_little_wider_than_the_transcription_and_never_narrower():
    scores, is_member = made_up(2, 500, 3_000)
    low, high = tpr_limits(roc_curve(scores, is_member), 0.05, [0.025])[:, 0]
    exact_low, exact_high = by_hand(scores, is_member, 0.05, 0.025)
    assert exact_low - 0.01 < low <= exact_low + 1e-6
    assert exact_high - 1e-6 <= high < exact_high + 0.01


def test_few_non_members_show_no_rate_above_0_however_good_the_attack():
    """With 100 of them the threshold of 1 % is above all with a chance of 37 %."""
    scores, is_member = made_up(3, 100, 100, shift=50.0)
    low, high = tpr_limits(roc_curve(scores, is_member), 0.01, [0.025])[:, 0]
    assert low == 0.0
    assert high == pytest.approx(1.0)
    enough = tpr_limits(roc_curve(*made_up(3, 100, 500, shift=50.0)), 0.01, [0.025])[0, 0]
    assert enough > 0.9


def test_no_hit_and_all_hits_have_intervals_with_width():
    for shift in (-50.0, 50.0):
        scores, is_member = made_up(4, 20, 1_000, shift=shift)
        low, high = tpr_limits(roc_curve(scores, is_member), 0.05, [0.025])[:, 0]
        assert high - low == pytest.approx(1 - 0.025 ** (1 / 20), abs=0.01), "the rule of three"


def test_limits_widen_step_by_step_and_are_read_between_steps():
    scores, is_member = made_up(5, 300, 2_000)
    measured = measure(scores, is_member, target="t", attack="a")
    for number in (measured.auc, measured.tpr[0].estimate, measured.balanced_accuracy):
        limits = number.limits
        assert len(limits.low) == len(limits.high) == len(LADDER)
        assert list(limits.low) == sorted(limits.low, reverse=True)
        assert list(limits.high) == sorted(limits.high)
        assert number.low < limits.low[0] < number.value < limits.high[0] < number.high
    kept = measured.tpr[0].estimate.limits.low
    between = at_error(kept, 0.05 / 10)
    exact = tpr_limits(roc_curve(scores, is_member), 0.1, [0.05 / 10])[0, 0]
    assert between == pytest.approx(exact, abs=0.002)
    assert at_error(kept, 0.05) == kept[0]
    assert at_error(kept, LADDER[-1]) == kept[-1]
    assert at_error(kept, LADDER[-1] / 2) is None, "limits were kept for no so many comparisons"


@pytest.mark.parametrize("n_non_members", [580, 620, 660, 700])
def test_a_limit_is_never_read_off_across_a_jump(n_non_members):
    """At 1 % FPR and an error of 0.00125 so few non-members show no rate above 0, or hardly do."""
    scores, is_member = made_up(6, 300, n_non_members, shift=50.0)
    for rate in (scores, -scores):
        curve = roc_curve(rate, is_member if rate is scores else ~is_member)
        kept_low, kept_high = tpr_limits(curve, 0.01, LADDER)
        for error in (0.05 / 3, 0.05 / 20, 0.05 / 40, 0.05 / 160):
            low, high = tpr_limits(curve, 0.01, [error])[:, 0]
            assert at_error(kept_low, error) <= low + 1e-3
            assert at_error(kept_high, error) >= high - 1e-3
    assert at_error([0.3, 0.0, 0.0], 0.05 / 2) == 0.0
    assert at_error([0.7, 1.0, 1.0], 0.05 / 2) == 1.0
    assert at_error([0.3, 0.29, 0.0], 0.05 / 2) == pytest.approx(0.295, abs=0.002)


def test_limits_of_earlier_runs_end_where_they_were_kept_to():
    assert at_error([0.1] * 8, LADDER[7]) == 0.1
    assert at_error([0.1] * 8, LADDER[8]) is None
    assert at_error([0.1] * len(LADDER), 0.05 / 2**20) == 0.1
