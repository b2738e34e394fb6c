"""ROC numbers: scikit-learn is the oracle, and small cases are worked by hand."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from raymia.metrics.roc import (
    allowed_false_positives,
    auc,
    needed_non_members,
    one_minus_equal_error_rate,
    roc_curve,
    tpr_at_fpr,
)

NAN, INF = float("nan"), float("inf")


@st.composite
def audits(draw):
    """Scores with many ties, with at least one record of each kind."""
    n = draw(st.integers(2, 40))
    levels = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e300, 1e300))
    scores = np.array(draw(st.lists(levels, min_size=n, max_size=n)))
    n_members = draw(st.integers(1, n - 1))
    is_member = np.array(draw(st.permutations([True] * n_members + [False] * (n - n_members))))
    return scores, is_member


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(audits())
def test_curve_equals_scikit_learns(audit):
    scores, is_member = audit
    curve = roc_curve(scores, is_member)
    fpr, tpr, thresholds = sklearn.metrics.roc_curve(is_member, scores, drop_intermediate=False)
    np.testing.assert_array_equal(curve.fpr, fpr)
    np.testing.assert_array_equal(curve.tpr, tpr)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert auc(curve) == pytest.approx(sklearn.metrics.roc_auc_score(is_member, scores), abs=1e-12)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(audits(), st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 1 / 3, 0.5, 1.0]))
def test_rates_are_the_best_over_all_thresholds(audit, max_fpr):
    scores, is_member = audit
    curve = roc_curve(scores, is_member)
    best_tpr = 0.0
    for threshold in scores:
        called = scores >= threshold
        tpr, fpr = called[is_member].mean(), called[~is_member].mean()
        if fpr <= max_fpr:
            best_tpr = max(best_tpr, tpr)
    assert tpr_at_fpr(curve, max_fpr) == pytest.approx(best_tpr)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(audits())
def test_equal_error_rate_is_where_scikit_learns_curve_crosses(audit):
    scores, is_member = audit
    fpr, tpr, _ = sklearn.metrics.roc_curve(is_member, scores, drop_intermediate=False)

    def gap(share):
        """Misses less false alarms at a share of the way along the curve, as a polyline."""
        steps = np.arange(fpr.size) / (fpr.size - 1)
        return 1 - np.interp(share, steps, tpr) - np.interp(share, steps, fpr)

    crossing = brentq(gap, 0.0, 1.0, xtol=1e-14)
    expected = np.interp(crossing, np.arange(fpr.size) / (fpr.size - 1), tpr)
    found = one_minus_equal_error_rate(roc_curve(scores, is_member))
    assert found == pytest.approx(expected, abs=1e-9)


def test_nearly_perfect_attack_is_not_reported_as_finding_nobody():
    # 990 of 1000 members lie above every non-member. Many thresholds share a false positive rate
    # of 0, and the first of them, which argmin |fpr - x| picks, calls nobody a member.
    scores = np.concatenate([np.full(10, -1.0), np.arange(990) + 100.0, np.arange(40) / 40])
    is_member = np.arange(scores.size) < 1000
    curve = roc_curve(scores, is_member)
    assert curve.tpr[np.argmin(np.abs(curve.fpr - 0.01))] == 0.0
    assert auc(curve) > 0.98
    assert tpr_at_fpr(curve, 0.01) == 0.99


def test_nearest_rate_above_the_budget_is_not_taken():
    # Ten non-members: the rates are multiples of 0.1, and 0.1 is nearer to 0.08 than 0 is.
    scores = np.array([9.0, 8.0, 7.0, *range(-9, 0)])
    is_member = np.array([True, False, True, *[False] * 9])
    curve = roc_curve(scores, is_member)
    assert tpr_at_fpr(curve, 0.08) == 0.5
    assert tpr_at_fpr(curve, 0.1) == 1.0


def test_nothing_is_interpolated_across_ties():
    # One tie holds half of all members and half of all non-members.
    scores = np.array([2.0, 2.0, 1.0, 1.0])
    is_member = np.array([True, False, True, False])
    curve = roc_curve(scores, is_member)
    assert curve.fpr.tolist() == [0.0, 0.5, 1.0]
    assert tpr_at_fpr(curve, 0.49) == 0.0
    assert tpr_at_fpr(curve, 0.5) == 0.5


def test_lower_scores_for_members_give_an_auc_below_one_half():
    curve = roc_curve(np.array([0.0, 1.0]), np.array([True, False]))
    assert auc(curve) == 0.0
    assert one_minus_equal_error_rate(curve) == 0.0


@given(st.integers(1, 10_000), st.integers(1, 9_999), st.sampled_from([100, 1000, 10_000]))
def test_budgets_are_counted_without_rounding(n, numerator, denominator):
    numerator = numerator % (denominator - 1) + 1
    max_fpr = numerator / denominator
    assert allowed_false_positives(max_fpr, n) == numerator * n // denominator
    assert needed_non_members(max_fpr) == -(-denominator // numerator)


@pytest.mark.parametrize(
    ("scores", "is_member", "message"),
    [
        ([1.0, 2.0], [True], r"shapes \(2,\) and \(1,\)"),
        ([[1.0, 2.0]], [[True, False]], "one-dimensional"),
        ([1.0, 2.0], [1, 0], "should be boolean, but got dtype int64"),
        ([1.0, NAN, INF], [True, False, True], "2 of 3 are not; the first is nan at position 1"),
        ([1.0, 2.0], [True, True], "but got 2 and 0"),
        ([1.0, 2.0], [False, False], "but got 0 and 2"),
        ([], [], "shape|boolean|but got 0 and 0"),
    ],
)
def test_unusable_input_is_refused_in_words(scores, is_member, message):
    with pytest.raises(ValueError, match=message):
        roc_curve(np.array(scores), np.array(is_member))


@pytest.mark.parametrize("max_fpr", [-0.1, 1.1, NAN])
def test_budget_outside_the_unit_interval_is_refused(max_fpr):
    curve = roc_curve(np.array([0.0, 1.0]), np.array([True, False]))
    with pytest.raises(ValueError, match="max_fpr"):
        tpr_at_fpr(curve, max_fpr)
