"""EZ-MIA and WBC: target against reference, token by token."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_answers import IDS, NO_TOKENS, REFERENCE, TARGET, evidence, f32, one, scores

PUBLISHED_WINDOWS = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)


def gains(record):
    pairs = zip(TARGET[0][record], REFERENCE[0][record], strict=True)
    return [f32(t[0]) - f32(r[0]) for t, r in pairs]


def two_models(target, reference):
    """Evidence on one record from the log-probabilities of its tokens."""
    models = [({"r": [(p, -3.0, 1.0) for p in log_probs]}, {}) for log_probs in (target, reference)]
    return evidence(*models, ["r"], ["t"], 0)


def one_score(name, target, reference, **parameters):
    return scores(name, two_models(target, reference), **parameters)[0]


# -------------------------------------------------------------------- the formulas, once more


def ez(record):
    """P / (P + N) over error tokens; made evidence calls a token top-1 above log p = -1."""
    if record == NO_TOKENS:
        return math.nan
    moved = gains(record)
    errors = [g for g, t in zip(moved, TARGET[0][record], strict=True) if not t[0] > -1]
    if len(errors) < 2:
        errors = moved
    p, n = sum(g for g in errors if g > 0), -sum(g for g in errors if g < 0)
    return p / (p + n)


def wbc(windows):
    def score(record):
        if record == NO_TOKENS:
            return math.nan
        target, reference = ([-f32(t[0]) for t in m[0][record]] for m in (TARGET, REFERENCE))
        shares = []
        for w in windows:
            starts = range(len(target) - w + 1)
            won = [sum(reference[s : s + w]) > sum(target[s : s + w]) for s in starts]
            shares += [sum(won) / len(won)] if won else []
        return sum(shares) / len(shares) if shares else math.nan

    return score


@pytest.mark.parametrize(
    ("name", "parameters", "formula"),
    [("ez", {}, ez), ("wbc", {}, wbc(PUBLISHED_WINDOWS)), ("wbc", {"windows": "1"}, wbc((1,))),
     ("wbc", {"windows": 3}, wbc((3,))), ("wbc", {"windows": " 5, 2"}, wbc((2, 5)))],
)  # fmt: skip
def test_attack_is_its_formula(name, parameters, formula):
    expected = [formula(record) for record in IDS]
    assert len({x for x in expected if math.isfinite(x)}) >= 6, "too little to compare"
    np.testing.assert_allclose(scores(name, **parameters), expected, rtol=1e-9)


def test_ez_has_the_order_of_the_published_ratio():
    def published(record):
        errors = [g for g, t in zip(gains(record), TARGET[0][record], strict=True) if t[0] <= -1]
        p, n = sum(g for g in errors if g > 0), -sum(g for g in errors if g < 0)
        return p / n if len(errors) >= 2 and n > 0 else None

    found = dict(zip(IDS, scores("ez"), strict=True))
    ratios = {r: published(r) for r in IDS if r != NO_TOKENS}
    finite = [r for r in ratios if ratios[r] is not None]
    assert len(finite) >= 6
    assert sorted(finite, key=ratios.get) == sorted(finite, key=found.get)


# ------------------------------------------------------------------------ the surest members


def test_record_whose_error_tokens_all_moved_up_has_the_highest_ez_score():
    """The released code gives it 0, the lowest."""
    assert one_score("ez", [-2.0, -3.0, -2.0], [-4.0, -4.0, -4.0]) == 1
    assert one_score("ez", [-4.0, -4.0, -4.0], [-2.0, -3.0, -2.0]) == 0


@pytest.mark.parametrize("errors", [0, 1])
def test_text_that_only_the_target_predicts_has_a_high_ez_score(errors):
    """All tokens are compared where fewer than two are errors; the released code gives 0."""
    target = [-0.1] * (8 - errors) + [-1.5] * errors
    assert one_score("ez", target, [-3.0] * 8) == 1


def test_one_error_token_does_not_decide_alone():
    target, reference = [-0.1] * 7 + [-3.5], [-3.0] * 8
    assert one_score("ez", target, reference) == pytest.approx(20.3 / 20.8)


def test_text_that_the_reference_predicts_as_well_has_no_high_ez_score():
    assert one_score("ez", [-0.1] * 8, [-0.1] * 8) == 0.5
    assert one_score("ez", [-0.1] * 8, [-0.05] * 8) == 0


def test_tokens_that_the_target_predicts_do_not_count_beside_two_errors():
    with_easy = one_score("ez", [-2.0, -3.0, -0.1, -0.2], [-3.0, -2.5, -9.0, -0.1])
    assert with_easy == pytest.approx(one_score("ez", [-2.0, -3.0], [-3.0, -2.5]))
    assert with_easy == pytest.approx(1.0 / 1.5)


def test_top1_is_the_targets():
    given = two_models([-2.0, -2.0, -2.0], [-3.0, -1.5, -9.0])
    reference = given.reference
    flipped = replace(reference.tokens, is_top1=~reference.tokens.is_top1)
    other = replace(given, reference=replace(reference, tokens=flipped))
    assert scores("ez", other)[0] == scores("ez", given)[0]


@pytest.mark.parametrize(("name", "neutral"), [("ez", 0.5), ("wbc", 0.0)])
def test_target_that_is_its_own_reference_tells_nothing(name, neutral):
    found = scores(name, evidence(TARGET, TARGET))
    assert set(found[np.isfinite(found)]) == {neutral}


# ------------------------------------------------------------------------------------ windows


def test_default_windows_are_the_published_ones():
    np.testing.assert_array_equal(
        scores("wbc"), scores("wbc", windows=",".join(map(str, PUBLISHED_WINDOWS)))
    )


@pytest.mark.parametrize("length", [1, 2, 3, 39, 40, 41])
def test_windows_longer_than_the_text_are_left_out(length):
    found = one_score("wbc", [-1.0] * length, [-2.0] * length, windows="2,40")
    assert found == 1 if length >= 2 else math.isnan(found)


def test_a_window_counts_by_its_sum():
    target, reference = [-1.0, -1.0, -9.0, -1.0], [-2.0, -2.0, -2.0, -2.0]
    assert one_score("wbc", target, reference, windows="1") == 3 / 4
    assert one_score("wbc", target, reference, windows="2") == 1 / 3
    assert one_score("wbc", target, reference, windows="1,2") == pytest.approx((3 / 4 + 1 / 3) / 2)
    assert one_score("wbc", target, reference, windows="4") == 0


# --------------------------------------------------------------------- tokens that are not the same


def with_reference_ids(given, token_ids):
    tokens = replace(given.reference.tokens, token_ids=np.array(token_ids, np.int32))
    return replace(given, reference=replace(given.reference, tokens=tokens))


@pytest.mark.parametrize("name", ["ez", "wbc"])
def test_record_cut_into_other_tokens_has_no_score(name):
    models = [({"a": one(p), "b": one(p, length=3)}, {}) for p in (-1.0, -2.0)]
    given = evidence(*models, ["a", "b"], ["t", "t"], 0)
    ids = [*given.target.tokens.token_ids]
    assert np.isfinite(scores(name, with_reference_ids(given, ids))).all()
    for place, lost in ((2, 0), (10, 1)):
        other = scores(name, with_reference_ids(given, [*ids[:place], 77, *ids[place + 1 :]]))
        assert np.isnan(other[lost])
        assert np.isfinite(other[1 - lost])


@pytest.mark.parametrize("name", ["ez", "wbc"])
def test_record_cut_off_at_another_length_has_no_score(name):
    models = [({"a": one(p, length=n), "b": one(p)}, {}) for p, n in ((-1.0, 5), (-2.0, 6))]
    found = scores(name, evidence(*models, ["a", "b"], ["t", "t"], 0))
    assert np.isnan(found[0])
    assert np.isfinite(found[1])


@pytest.mark.parametrize("name", ["difference", "ratio"])
def test_means_are_compared_across_tokenizers(name):
    given = evidence()
    other = with_reference_ids(given, given.reference.tokens.token_ids + 1000)
    np.testing.assert_array_equal(scores(name, other), scores(name))
