"""The learned combination is judged by records that it was not fitted on."""

from __future__ import annotations

import numpy as np
import pytest
from made_evidence import model_evidence
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from raymia.attacks import build
from raymia.evidence.text import LabelledScores, TextEvidence
from raymia.metrics import learning
from raymia.metrics.learning import fold_of


def evidence(features, labels, units=None):
    ids = [f"r{i}" for i in range(len(labels))]
    given = LabelledScores(
        {f"a{k}": column for k, column in enumerate(features.T)}, labels, units or ids
    )
    return TextEvidence(ids, model_evidence(ids, {}), labelled=given)


def score(*given, **parameters):
    return build("learned_combination", parameters, "here").score(evidence(*given))


def made(count=300, signal=1.0, seed=0):
    draws = np.random.default_rng(seed)
    labels = [bool(i % 2) for i in range(count)]
    features = draws.normal(size=(count, 3)) + signal * np.outer(labels, [1.0, -1.0, 0.0])
    return features, labels


@pytest.mark.long
def test_two_weak_attacks_make_the_stronger_one_that_theory_says():
    """Unit normals a distance d apart have an AUC of Phi(d / sqrt 2): d is 1 for each of the two
    features, and sqrt 2 for the best combination of them."""
    alone, best = norm.cdf(1 / np.sqrt(2)), norm.cdf(1.0)
    found = []
    for seed in range(20):
        features, labels = made(seed=seed)
        found.append(roc_auc_score(labels, score(features, labels)))
    # An AUC of 150 and 150 records has a standard error of 0.023, the mean of 20 one of 0.005.
    assert np.mean(found) == pytest.approx(best, abs=0.02)
    assert np.mean(found) > alone + 0.05


@pytest.mark.long
def test_noise_teaches_nothing():
    """Fitted on what it is judged by, 40 features of noise would tell 100 records apart."""
    draws = np.random.default_rng(1)
    aucs = []
    for _ in range(20):
        labels = [bool(i % 2) for i in range(100)]
        aucs.append(roc_auc_score(labels, score(draws.normal(size=(100, 40)), labels)))
    assert abs(np.mean(aucs) - 0.5) < 0.05


def test_own_label_does_not_change_a_records_score():
    features, labels = made(80)
    flipped = [not labels[0], *labels[1:]]
    assert score(features, flipped)[0] == score(features, labels)[0]


def test_own_label_changes_nothing_either_where_a_sample_is_fitted_on(monkeypatch):
    monkeypatch.setattr(learning, "MAX_FITTED", 40)
    features, labels = made(200)
    drawn = score(features, labels)
    assert 0.6 < roc_auc_score(labels, drawn) < 1.0
    for row in range(0, 200, 50):
        flipped = [*labels[:row], not labels[row], *labels[row + 1 :]]
        assert score(features, flipped)[row] == drawn[row]
    monkeypatch.undo()
    assert not np.allclose(score(features, labels), drawn)


def test_label_of_a_record_of_its_group_does_not_change_it_either():
    features, labels = made(80)
    units = [f"g{i // 4}" for i in range(80)]
    flipped = [*labels[:3], not labels[3], *labels[4:]]
    assert score(features, flipped, units)[0] == score(features, labels, units)[0]
    assert len({*fold_of(units, 5, "x")[:4]}) == 1


def test_candidate_gets_a_score_and_teaches_nothing():
    features, labels = made(80)
    with_candidate = score(np.vstack([features, [[5.0, -5.0, 0.0]]]), [*labels, None])
    np.testing.assert_allclose(with_candidate[:80], score(features, labels))
    assert with_candidate[80] > np.median(with_candidate)


def test_candidate_of_a_group_is_scored_by_what_did_not_see_the_group():
    features, labels = made(80)
    units = [f"g{i // 4}" for i in range(80)]
    mixed = [*labels[:3], None, *labels[4:]]
    flipped = [not labels[0], *mixed[1:]]
    assert score(features, flipped, units)[3] == score(features, mixed, units)[3]


def test_score_that_is_missing_is_taken_for_the_median():
    features, labels = made(80)
    features[3, :2] = np.nan
    assert np.isfinite(score(features, labels)).all()


def test_record_without_a_score_has_none_here_either():
    features, labels = made(80)
    features[3] = np.nan
    features[4, 0] = np.nan
    assert np.isnan(score(features, labels)).nonzero()[0].tolist() == [3]


def test_too_few_records_give_no_score():
    features, labels = made(18)
    assert np.isnan(score(features, labels)).all()


def test_without_an_attack_to_learn_from_no_record_has_a_score():
    _, labels = made(80)
    found = score(np.empty((80, 0)), labels)
    assert found.shape == (80,)
    assert np.isnan(found).all()


def test_one_fold_is_refused():
    with pytest.raises(Exception, match="folds should be at least 2"):
        build("learned_combination", {"folds": 1}, "here")
