"""Comparisons are made on shared records and corrected as one family."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.metrics.comparison import Question, compare, corrected, holm
from raymia.metrics.delong import auc_difference

IS_MEMBER = np.arange(120) < 60


def made(seed=0):
    draws = np.random.default_rng(seed)
    strengths = {("t", "a"): 2.0, ("t", "b"): 1.0, ("t", "c"): 0.0, ("u", "a"): 1.5}
    return {place: draws.normal(size=120) + s * IS_MEMBER for place, s in strengths.items()}


def asked(*others):
    between = {"t": "attacks", "u": "targets"}
    return [Question(between[other[0]], ("t", "a"), other) for other in others]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_holm_rejects_what_its_stepwise_definition_rejects(p_values):
    """Holm 1979: walk up the ordered p-values while each is within level / (those left)."""
    found = holm(np.array(p_values))
    for level in (0.01, 0.05, 0.3):
        rejected, order = set(), np.argsort(p_values, kind="stable")
        for step, place in enumerate(order):
            if p_values[place] * (len(p_values) - step) > level:
                break
            rejected.add(int(place))
        assert {int(i) for i in np.flatnonzero(found <= level)} == rejected


def test_each_is_delongs_test_and_the_family_is_corrected():
    scores = made()
    questions = asked(("t", "b"), ("t", "c"), ("u", "a"))
    found = compare(questions, scores.__getitem__, IS_MEMBER, confidence=0.9)
    assert [(e.between, e.other_target, e.other_attack) for e in found] == [
        ("attacks", "t", "b"), ("attacks", "t", "c"), ("targets", "u", "a"),
    ]  # fmt: skip
    for entry in found:
        other = scores[entry.other_target, entry.other_attack]
        expected = auc_difference(scores["t", "a"], other, IS_MEMBER, confidence=0.9)
        assert (entry.value, entry.low, entry.high) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
        assert entry.p_value == expected.p_value
    np.testing.assert_array_equal(
        [e.p_holm for e in found], holm(np.array([e.p_value for e in found]))
    )


def test_families_that_were_tested_apart_are_corrected_together():
    scores = made()
    together = compare(asked(("t", "b"), ("u", "a")), scores.__getitem__, IS_MEMBER)
    apart = [
        entry
        for question in asked(("t", "b"), ("u", "a"))
        for entry in compare([question], scores.__getitem__, IS_MEMBER)
    ]
    assert corrected(apart) == together


def test_only_records_that_both_score_are_compared():
    scores = made()
    scores["t", "b"][[0, 1, 119]] = np.nan
    (found,) = compare(asked(("t", "b")), scores.__getitem__, IS_MEMBER)
    assert (found.n_members, found.n_non_members) == (58, 59)
    both = np.isfinite(scores["t", "b"])
    expected = auc_difference(scores["t", "a"][both], scores["t", "b"][both], IS_MEMBER[both])
    assert found.value == pytest.approx(expected.value)


def test_attack_without_scores_is_not_compared():
    scores = made()
    scores["t", "b"][:] = np.nan
    assert len(compare(asked(("t", "b"), ("t", "c")), scores.__getitem__, IS_MEMBER)) == 1
    assert compare([], scores.__getitem__, IS_MEMBER) == []


def test_attacks_on_very_few_records_are_not_compared():
    scores = made()
    scores["t", "b"][4:60] = np.nan
    assert compare(asked(("t", "b")), scores.__getitem__, IS_MEMBER) == []
    scores["t", "b"][4] = 0.0
    assert len(compare(asked(("t", "b")), scores.__getitem__, IS_MEMBER)) == 1
