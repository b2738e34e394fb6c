"""The paired bootstrap of a true positive rate."""

from __future__ import annotations

import numpy as np
import pytest

from raymia.metrics.paired import rate_difference
from raymia.metrics.roc import roc_curve, tpr_at_fpr


def pair(draws, n, shift, other_shift, shared=0.8):
    """Scores of two attacks that are correlated on n members and n non-members."""
    is_member = np.arange(2 * n) < n
    common = draws.normal(size=2 * n) * np.sqrt(shared)
    own = draws.normal(size=(2, 2 * n)) * np.sqrt(1 - shared)
    return common + own[0] + shift * is_member, common + own[1] + other_shift * is_member, is_member


def test_rates_are_those_of_the_roc_curve_ties_included():
    first, second, is_member = pair(np.random.default_rng(0), 200, 1.5, 1.0)
    first = first.round(1)
    found = rate_difference(first, second, is_member, 0.05, resamples=100)
    assert found.first == tpr_at_fpr(roc_curve(first, is_member), 0.05)
    assert found.second == tpr_at_fpr(roc_curve(second, is_member), 0.05)
    assert found.value == found.first - found.second


def test_resamples_are_paired_and_take_thresholds_anew():
    """Against a transcription that resamples records one by one and measures each resample."""
    first, second, is_member = pair(np.random.default_rng(1), 60, 1.5, 0.5)
    found = rate_difference(first, second, is_member, 0.1, resamples=4_000)
    draws = np.random.default_rng(2)
    rows = [np.flatnonzero(is_member), np.flatnonzero(~is_member)]
    differences = []
    for _ in range(2_000):
        drawn = np.concatenate([draws.choice(own, own.size) for own in rows])
        rates = [
            tpr_at_fpr(roc_curve(scores[drawn], is_member[drawn]), 0.1)
            for scores in (first, second)
        ]
        differences.append(rates[0] - rates[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_where_there_is_no_difference_five_percent_at_most_are_called_one():
    draws = np.random.default_rng(3)
    p_values = []
    for _ in range(300):
        first, second, is_member = pair(draws, 200, 1.5, 1.5)
        p_values.append(rate_difference(first, second, is_member, 0.01, resamples=200).p_value)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05  # McNemar's test: 0.4 and more


def test_a_large_difference_is_shown_and_its_sign_is_the_first_less_the_second():
    first, second, is_member = pair(np.random.default_rng(4), 400, 2.5, 0.5)
    found = rate_difference(first, second, is_member, 0.01)
    assert found.value > 0.2
    assert found.low > 0
    assert found.p_value == 2 / 2_001
    turned = rate_difference(second, first, is_member, 0.01)
    assert (turned.value, turned.p_value) == (-found.value, found.p_value)


def test_equal_scores_do_not_differ():
    first, _, is_member = pair(np.random.default_rng(5), 100, 1.0, 1.0)
    found = rate_difference(first, first, is_member, 0.1, resamples=100)
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_a_budget_without_a_false_positive_has_no_rate():
    first, second, is_member = pair(np.random.default_rng(6), 99, 1.0, 1.0)
    assert rate_difference(first, second, is_member, 0.01) is None
    assert rate_difference(first, second, np.zeros(198, bool), 0.1) is None
    assert rate_difference(first, second, np.ones(198, bool), 0.1) is None


def test_how_many_are_held_at_once_changes_nothing(monkeypatch):
    first, second, is_member = pair(np.random.default_rng(7), 100, 1.5, 1.0)
    whole = rate_difference(first, second, is_member, 0.1, resamples=300)
    monkeypatch.setattr("raymia.metrics.paired.MAX_CELLS", 700)
    pieces = rate_difference(first, second, is_member, 0.1, resamples=300)
    assert whole == pieces
