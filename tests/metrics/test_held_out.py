"""A threshold is chosen on one half, judged on the other, and labelled with what it came to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from raymia.metrics.held_out import Halves, accuracy_held_out, precision, rate, rates_held_out
from raymia.metrics.measuring import calibration_half, measure


@st.composite
def audits(draw):
    """Scores with ties, labels and halves; each half with members and non-members."""
    n = draw(st.integers(4, 60))
    levels = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5))
    scores = np.array(draw(st.lists(levels, min_size=n, max_size=n)))
    kinds = draw(st.lists(st.integers(0, 3), min_size=n - 4, max_size=n - 4))
    kinds = np.array(draw(st.permutations([0, 1, 2, 3, *kinds])))
    return scores, kinds % 2 == 1, kinds >= 2


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(audits(), st.sampled_from([0.1, 0.25, 0.5]))
def test_threshold_is_the_lowest_within_the_budget_on_the_calibration_half(audit, max_fpr):
    scores, is_member, calibration = audit
    halves = Halves.split(scores, is_member, calibration)
    found = rates_held_out(halves, max_fpr, priors=[0.1], confidence=0.95)
    chosen_on = scores[calibration & ~is_member]
    if max_fpr * chosen_on.size < 1:
        assert found is None
        return
    assert np.mean(chosen_on > found.threshold) <= max_fpr
    lower = chosen_on[chosen_on < found.threshold]
    assert not lower.size or np.mean(chosen_on > lower.max()) > max_fpr
    for judged, kind in ((found.tpr, is_member), (found.fpr, ~is_member)):
        others = scores[~calibration & kind]
        assert (judged.hits, judged.of) == (np.sum(others > found.threshold), others.size)
        interval = stats.binomtest(judged.hits, judged.of).proportion_ci(0.95)
        assert (judged.low, judged.high) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(audits())
def test_balanced_accuracy_is_scikit_learns_at_the_best_threshold_of_the_other_half(audit):
    scores, is_member, calibration = audit
    found = accuracy_held_out(Halves.split(scores, is_member, calibration), confidence=0.95)

    def accuracy(rows, threshold):
        found, spared = scores[rows & is_member], scores[rows & ~is_member]
        return (np.mean(found > threshold) + np.mean(spared <= threshold)) / 2

    called = scores[~calibration] > found.threshold
    assert found.value == pytest.approx(balanced_accuracy_score(is_member[~calibration], called))
    assert found.low <= found.value <= found.high
    best = max(accuracy(calibration, threshold) for threshold in scores[calibration])
    assert accuracy(calibration, found.threshold) == pytest.approx(best)


def test_judged_records_do_not_move_the_threshold():
    draws = np.random.default_rng(0)
    scores, is_member = draws.normal(size=400), np.arange(400) % 2 == 0
    calibration = np.arange(400) % 4 < 2
    one = measure(scores, is_member, target="t", attack="a", calibration=calibration)
    moved = np.where(calibration, scores, scores + 10 * is_member)
    two = measure(moved, is_member, target="t", attack="a", calibration=calibration)
    for first, second in zip(one.tpr[:2], two.tpr[:2], strict=True):
        assert first.held_out.threshold == second.held_out.threshold
        assert second.held_out.tpr.value == 1.0
    assert one.balanced_accuracy.threshold == two.balanced_accuracy.threshold


def test_best_of_many_useless_attacks_is_at_chance():
    """On the records a threshold was chosen on, the best of 100 would look far above it."""
    draws = np.random.default_rng(1)
    is_member, calibration = np.arange(200) % 2 == 0, np.arange(200) % 4 < 2
    found = [
        accuracy_held_out(Halves.split(scores, is_member, calibration), confidence=0.95).value
        for scores in draws.normal(size=(400, 200))
    ]
    # One audit of 100 judged records has a standard error of 0.05, the mean of 400 one of 0.0025.
    assert abs(np.mean(found) - 0.5) < 0.01


def test_budget_that_the_half_cannot_resolve_is_none():
    scores = np.random.default_rng(2).normal(size=300)
    is_member, calibration = np.arange(300) < 100, np.arange(300) % 2 == 0
    names = {"target": "t", "attack": "a"}
    result = measure(scores, is_member, calibration=calibration, **names)
    ten, one, tenth = result.tpr
    assert ten.held_out is not None
    assert ten.held_out.n_calibration == 100
    assert one.held_out is not None, "1 % of 100 is one"
    assert one.resolvable
    assert tenth.held_out is None
    fewer = measure(scores[:298], is_member[:298], calibration=calibration[:298], **names)
    assert fewer.tpr[1].resolvable
    assert fewer.tpr[1].held_out is None, "1 % of 198 is one, of 99 none"


@pytest.mark.parametrize("lacking", ["members", "non-members", "everything"])
def test_half_that_lacks_a_kind_gives_nothing_held_out(lacking):
    is_member = np.arange(100) < 50
    calibration = {
        "members": is_member.copy(), "non-members": ~is_member, "everything": is_member | True
    }[lacking]  # fmt: skip
    result = measure(np.arange(100.0), is_member, target="t", attack="a", calibration=calibration)
    assert result.balanced_accuracy is None
    assert all(tpr.held_out is None for tpr in result.tpr)
    assert result.epsilon == []
    assert result.tpr[0].estimate is not None


def test_halves_split_no_unit():
    units = [f"group {i // 3}" for i in range(300)]
    half = calibration_half(units).reshape(100, 3)
    assert np.all(half == half[:, :1])
    assert 30 <= half[:, 0].sum() <= 70


def test_precision_is_bayes_rule_and_its_limits_those_of_both_rates():
    tpr, fpr = rate(80, 100, 0.95), rate(1, 100, 0.95)
    found = precision(tpr, fpr, 0.01, 0.95)
    assert found.value == pytest.approx(0.01 * 0.8 / (0.01 * 0.8 + 0.99 * 0.01))
    # Each rate at 97.5 %: both hold at once in 95 %.
    members = stats.binomtest(80, 100).proportion_ci(0.975)
    others = stats.binomtest(1, 100).proportion_ci(0.975)
    low = 0.01 * members.low / (0.01 * members.low + 0.99 * others.high)
    high = 0.01 * members.high / (0.01 * members.high + 0.99 * others.low)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_precision_of_a_threshold_that_calls_nobody_a_member_is_unknown():
    found = precision(rate(0, 50, 0.95), rate(0, 50, 0.95), 0.5, 0.95)
    assert (found.value, found.low, found.high) == (None, 0.0, 1.0)
