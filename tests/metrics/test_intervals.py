"""The bootstrap equals its slow definition, ignores chunking, and covers what it claims to."""

import statistics

import numpy as np
import pytest

from raymia.metrics import auc, balanced_accuracy, roc_curve, tpr_at_fpr
from raymia.metrics.intervals import (
    bootstrap,
    draw_indices,
    percentile_interval,
    stratum_generators,
)

FPRS = (0.2, 0.05, 0.01)


def made_up_audit(seed, n_members, n_non_members, shift=1.0, decimals=None):
    draws = np.random.default_rng(seed)
    scores = np.concatenate([draws.normal(shift, 1, n_members), draws.normal(0, 1, n_non_members)])
    if decimals is not None:
        scores = scores.round(decimals)
    is_member = np.arange(scores.size) < n_members
    order = draws.permutation(scores.size)
    return scores[order], is_member[order]


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_equals_measuring_each_resample_by_itself(decimals):
    scores, is_member = made_up_audit(3, 37, 53, decimals=decimals)
    replicates = bootstrap(scores, is_member, FPRS, resamples=40, seed=11)

    member_draws, non_member_draws = stratum_generators(11)
    labels = np.arange(37 + 53) < 37
    for row in range(40):
        resample = np.concatenate(
            [
                scores[is_member][draw_indices(37, 1, member_draws)[0]],
                scores[~is_member][draw_indices(53, 1, non_member_draws)[0]],
            ]
        )
        curve = roc_curve(resample, labels)
        assert replicates.auc[row] == pytest.approx(auc(curve), abs=1e-12)
        assert replicates.balanced_accuracy[row] == pytest.approx(balanced_accuracy(curve))
        expected = [tpr_at_fpr(curve, fpr) for fpr in FPRS]
        np.testing.assert_array_equal(replicates.tpr[row], expected)


@pytest.mark.parametrize("max_bytes", [1, 50_000, 10**9])
def test_memory_bound_changes_nothing(max_bytes):
    scores, is_member = made_up_audit(4, 60, 41)
    whole = bootstrap(scores, is_member, FPRS, resamples=101, seed=5)
    chunked = bootstrap(scores, is_member, FPRS, resamples=101, seed=5, max_bytes=max_bytes)
    for field in ("auc", "tpr", "balanced_accuracy"):
        np.testing.assert_array_equal(getattr(whole, field), getattr(chunked, field))


def test_seed_decides_everything():
    scores, is_member = made_up_audit(5, 50, 50)
    first, again = (bootstrap(scores, is_member, FPRS, resamples=50, seed=1) for _ in range(2))
    other = bootstrap(scores, is_member, FPRS, resamples=50, seed=2)
    np.testing.assert_array_equal(first.auc, again.auc)
    assert not np.array_equal(first.auc, other.auc)


def test_two_attacks_see_the_same_resamples():
    scores, is_member = made_up_audit(6, 50, 50)
    one = bootstrap(scores, is_member, FPRS, resamples=50, seed=1)
    same_ranks = bootstrap(np.exp(scores), is_member, FPRS, resamples=50, seed=1)
    np.testing.assert_array_equal(one.tpr, same_ranks.tpr)


def test_intervals_cover_the_truth_about_as_often_as_they_claim():
    # Normal scores one apart: AUC = Phi(1/sqrt 2), TPR at FPR x = Phi(Phi^-1(x) + 1).
    normal = statistics.NormalDist()
    true_auc = normal.cdf(1 / 2**0.5)
    true_tpr = normal.cdf(normal.inv_cdf(0.2) + 1)
    covered_auc = covered_tpr = 0
    for audit in range(200):
        scores, is_member = made_up_audit(audit, 150, 150)
        replicates = bootstrap(scores, is_member, (0.2,), resamples=400, seed=audit)
        low, high = percentile_interval(replicates.auc, 0.95)
        covered_auc += low <= true_auc <= high
        low, high = percentile_interval(replicates.tpr[:, 0], 0.95)
        covered_tpr += low <= true_tpr <= high
    # Three binomial standard deviations of 200 audits at 0.95 are 0.046.
    assert 0.90 <= covered_auc / 200 <= 0.996
    assert 0.90 <= covered_tpr / 200 <= 0.996


def test_higher_confidence_gives_a_wider_interval():
    values = np.arange(1001) / 1000
    assert percentile_interval(values, 0.9) == pytest.approx((0.05, 0.95))
    assert percentile_interval(values, 0.5) == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        percentile_interval(np.zeros(3), confidence)


def test_impossible_settings_are_refused():
    scores, is_member = made_up_audit(7, 5, 5)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap(scores, is_member, FPRS, resamples=0)
    with pytest.raises(ValueError, match="fprs"):
        bootstrap(scores, is_member, (1.5,))
