"""Intervals equal scipy's and hand-made ones; the bootstrap equals drawing records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raymia.metrics.intervals import (
    AucSpread,
    auc_interval,
    clopper_pearson,
    lower_limit,
    mean_of_two_rates,
    percentile_interval,
    upper_limit,
    wilson,
)


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
    low, high = auc_interval(auc, AucSpread(0.0, 0.0, 40, 40), 0.95)
    assert 0.0 <= low <= auc <= high <= 1.0
    exact_low, exact_high = clopper_pearson(40 * auc, 40, 0.95)
    assert low <= exact_low + 1e-9 < exact_high - 1e-9 <= high


def test_interval_of_an_auc_is_students_on_the_logit_where_that_is_the_wider():
    low, high = auc_interval(0.9, AucSpread(0.0014, 0.0002, 60, 90), 0.95)
    degrees = 0.0016**2 / (0.0014**2 / 59 + 0.0002**2 / 89)
    reach = stats.t.ppf(0.975, degrees) * 0.04 / 0.09
    assert np.log(low / (1 - low)) == pytest.approx(np.log(9) - reach)
    assert np.log(high / (1 - high)) == pytest.approx(np.log(9) + reach)


def test_interval_of_an_auc_near_1_is_newcombes():
    """The AUC lies as far from each limit as the limit's own variance allows."""
    auc, m, n = 0.99, 200, 100
    for limit in auc_interval(auc, AucSpread(1e-7, 1e-7, m, n), 0.95):
        beyond = (m + n) / 2 - 1
        shape = (1 - limit) / (2 - limit) + limit / (1 + limit)
        variance = limit * (1 - limit) * (1 + beyond * shape) / (m * n)
        assert abs(auc - limit) == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-5)


def test_few_records_of_a_kind_do_not_show_how_much_an_auc_scatters():
    spread = AucSpread(0.0001, 0.0001, 1_000, 10)
    assert auc_interval(0.8, spread, 0.95)[0] <= wilson(8, 10, 0.95)[0]
    assert auc_interval(0.8, AucSpread(0.0001, 0.0001, 1_000, 100), 0.95)[0] > 0.7


def test_higher_confidence_gives_a_wider_interval():
    values = np.arange(1001) / 1000
    assert percentile_interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert percentile_interval(values, 0.5) == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        percentile_interval(np.zeros(3), confidence)
