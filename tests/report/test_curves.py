"""Thinning a curve for the screen may not change what it says."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.metrics.roc import roc_curve, tpr_at_fpr
from raymia.results.curves import BINS, MAX_POINTS, draw, step_points

FPRS = (0.1, 0.01, 0.001)


def big_curve(n=30_000, shift=0.6):
    draws = np.random.default_rng(0)
    is_member = np.arange(2 * n) < n
    return roc_curve(draws.normal(size=2 * n) + shift * is_member, is_member)


def height_of_steps(points, budget):
    false_positives, true_positives = points
    last = np.searchsorted(false_positives, budget, side="right") - 1
    return true_positives[last] if last >= 0 else 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=60))
def test_steps_of_a_short_curve_are_the_curve(records):
    scores = np.array([float(score) for score, _ in records])
    is_member = np.array([member for _, member in records])
    if is_member.all() or not is_member.any():
        return
    curve = roc_curve(scores, is_member)
    points = step_points(curve)
    for budget in range(curve.n_non_members + 1):
        expected = tpr_at_fpr(curve, budget / curve.n_non_members) * curve.n_members
        assert height_of_steps(points, budget) == round(expected)
    assert (points[0][-1], points[1][-1]) == (curve.n_non_members, curve.n_members)


def test_long_curve_is_thinned_to_the_limit():
    false_positives, true_positives = step_points(big_curve(), FPRS)
    assert false_positives.size == true_positives.size <= MAX_POINTS + len(FPRS)
    assert np.all(np.diff(false_positives) > 0)
    assert np.all(np.diff(true_positives) >= 0)


def test_low_end_of_a_long_curve_does_not_move():
    curve = big_curve()
    points = step_points(curve)
    for budget in range(MAX_POINTS // 2):
        exact = round(tpr_at_fpr(curve, budget / curve.n_non_members) * curve.n_members)
        assert height_of_steps(points, budget) == exact


def test_thinned_curve_passes_through_the_rates_of_the_table():
    curve = big_curve()
    points = step_points(curve, (0.3, *FPRS))
    for fpr in (0.3, *FPRS):
        exact = round(tpr_at_fpr(curve, fpr) * curve.n_members)
        assert height_of_steps(points, fpr * curve.n_non_members) == exact


def test_thinned_curve_is_never_above_the_curve_and_close_to_it():
    curve = big_curve()
    points = step_points(curve)
    for fpr in np.linspace(0.05, 1, 50):
        drawn = height_of_steps(points, fpr * curve.n_non_members) / curve.n_members
        assert -0.01 < drawn - tpr_at_fpr(curve, fpr) <= 1e-12


def test_histograms_count_every_score_on_common_bins():
    draws = np.random.default_rng(0)
    is_member = np.arange(3000) < 1000
    scores = draws.normal(size=3000) + is_member
    scores[0], scores[-1] = 1e9, -1e9  # two far out leave the others their bins
    found = draw(scores, is_member, target="t", attack="a")
    assert found.edges.size == BINS + 1
    assert (found.members.sum(), found.non_members.sum()) == (1000, 2000)
    assert -4 < found.edges[0] < found.edges[-1] < 5
    inner = [np.histogram(scores[kind], found.edges)[0][1:-1] for kind in (is_member, ~is_member)]
    np.testing.assert_array_equal(found.members[1:-1], inner[0])
    np.testing.assert_array_equal(found.non_members[1:-1], inner[1])


def test_scores_that_are_all_one_fill_one_bin():
    found = draw(np.ones(7), np.arange(7) < 3, target="t", attack="a")
    assert (found.members.tolist(), found.non_members.tolist()) == ([3], [4])
