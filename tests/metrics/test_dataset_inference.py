"""A set that was not trained on is not found more often than the level of the test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from raymia.metrics import dataset, learning
from raymia.metrics.dataset import infer_dataset
from raymia.metrics.learning import Features
from raymia.results.wording import dataset_inference as say


def infer(features, is_suspect, is_fitted, units=None):
    units = np.arange(len(features)) if units is None else units
    return infer_dataset(
        Features(list(features.T)), is_suspect, is_fitted, units, target="t", suspects="members"
    )


def made(shift, draws, count=200, width=4):
    is_suspect = np.arange(count) % 2 == 0
    features = draws.normal(size=(count, width))
    features[is_suspect] += shift
    return features, is_suspect, np.arange(count) % 4 < 2


def test_small_shift_of_all_records_is_found():
    found = infer(*made(0.4, np.random.default_rng(0)))
    assert found.p_value < 1e-3
    assert found.effect > 0
    assert (found.n_suspects, found.n_non_members) == (50, 50)


@pytest.mark.long
def test_under_the_null_p_values_are_uniform():
    draws = np.random.default_rng(1)
    p = [infer(*made(0.0, draws)).p_value for _ in range(150)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


@pytest.mark.long
def test_a_group_counts_once():
    """Groups of ten that share half of their scores, and tell nothing."""
    draws, units = np.random.default_rng(5), np.repeat(np.arange(80), 10)
    by_group, by_record = [], []
    for _ in range(100):
        features = draws.normal(size=(80, 4))[units] + draws.normal(size=(800, 4))
        of = features, units % 2 == 0, units % 4 < 2
        by_group.append(infer(*of, units).p_value)
        by_record.append(infer(*of).p_value)
    assert stats.kstest(by_group, "uniform").pvalue > 1e-3
    assert np.mean(np.array(by_record) <= 0.05) > 0.2
    found = infer(*of, units)
    assert (found.n_suspects, found.n_non_members) == (20, 20)


def test_it_is_the_t_test_of_the_half_that_was_not_fitted_on():
    from raymia.metrics.learning import fit

    features, is_suspect, is_fitted = made(0.3, np.random.default_rng(2))
    values = fit(features[is_fitted], is_suspect[is_fitted]).decision_function(features)
    above, below = values[~is_fitted & is_suspect], values[~is_fitted & ~is_suspect]
    error = np.sqrt(above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below))
    t = (above.mean() - below.mean()) / error
    found = infer(features, is_suspect, is_fitted)
    expected = stats.ttest_ind(above, below, equal_var=False, alternative="greater")
    assert expected.statistic == pytest.approx(t)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_scores_that_are_all_one_have_no_p_value():
    features, is_suspect, is_fitted = made(0.0, np.random.default_rng(4))
    found = infer(np.zeros_like(features), is_suspect, is_fitted)
    assert found.p_value is None


def test_a_half_that_is_too_many_is_fitted_on_a_sample_which_is_said(monkeypatch):
    few = infer(*made(0.4, np.random.default_rng(0)))
    monkeypatch.setattr(learning, "MAX_FITTED", 60)
    monkeypatch.setattr(dataset, "MAX_FITTED", 60)
    found = infer(*made(0.4, np.random.default_rng(0)))
    assert (few.fitted_on, found.fitted_on) == (None, 60)
    assert (found.n_suspects, found.n_non_members) == (50, 50)
    assert found.p_value < 1e-3
    assert found.p_value != few.p_value
    assert "fitted on 60 of the others" in say(found)


def test_too_few_records_give_no_p_value():
    found = infer(*made(1.0, np.random.default_rng(3), count=30))
    assert found.p_value is None
    assert found.effect is None
