"""Ratio, difference in probability, SURP, Fast-DetectGPT and DetectGPT."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from made_answers import (
    IDS,
    NO_NEIGHBORS,
    NO_TOKENS,
    REFERENCE,
    TARGET,
    average,
    evidence,
    f32,
    mean_log_prob,
    neighbor_means,
    scores,
)


def one_score(name, tokens, reference=None, neighbors=(), **parameters):
    """Score of one record from (log p, mean, std) per token and (sum, count) per neighbor."""
    around = {("r", i): answer for i, answer in enumerate(neighbors, 1)}
    models = [({"r": t}, around) for t in (tokens, reference or tokens)]
    return scores(name, evidence(*models, ["r"], ["t"], len(neighbors)), **parameters)[0]


def ratio(record):
    return -mean_log_prob(REFERENCE, record) / -mean_log_prob(TARGET, record)


def difference_in_probability(record):
    return math.exp(mean_log_prob(TARGET, record)) - math.exp(mean_log_prob(REFERENCE, record))


def surprising(record, share, max_entropy):
    """The lowest share of the tokens, and those of them where the model was sure."""
    tokens = sorted((f32(p), -f32(mu)) for p, mu, _ in TARGET[0][record])
    lowest = tokens[: max(1, int(share * len(tokens)))]
    return [p for p, _ in lowest], [p for p, entropy in lowest if entropy < max_entropy]


def surp(share, max_entropy):
    def score(record):
        if record == NO_TOKENS:
            return math.nan
        lowest, sure = surprising(record, share, max_entropy)
        return average(sure or lowest)

    return score


def fast_detect(record):
    if record == NO_TOKENS:
        return math.nan
    tokens = [[f32(x) for x in token] for token in TARGET[0][record]]
    excess = sum(p for p, _, _ in tokens) - sum(mu for _, mu, _ in tokens)
    return excess / math.sqrt(sum(sigma**2 for _, _, sigma in tokens))


def detect_gpt(record):
    means = neighbor_means(TARGET, record)
    if len(means) < 2:
        return math.nan
    return (mean_log_prob(TARGET, record) - average(means)) / statistics.stdev(means)


@pytest.mark.parametrize(
    ("name", "parameters", "formula"),
    [
        ("ratio", {}, ratio),
        ("difference", {"space": "probability"}, difference_in_probability),
        ("surp", {}, surp(0.4, 2.0)),
        *[("surp", {"share": s, "max_entropy": h}, surp(s, h))
          for s, h in ((0.1, 3.0), (0.7, 1.5), (1.0, 2.5))],
        ("fast_detect", {}, fast_detect),
        ("detect_gpt", {}, detect_gpt),
    ],
    ids=lambda x: x if isinstance(x, str) else None,
)  # fmt: skip
def test_attack_is_its_formula(name, parameters, formula):
    expected = [formula(record) for record in IDS]
    assert sum(math.isfinite(x) for x in expected) >= 10, "too little to compare"
    np.testing.assert_allclose(scores(name, **parameters), expected, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------ ratio and difference


def sure(count=4):
    return [(0.0, -1.0, 1.0)] * count


def unsure(count=4):
    return [(-2.0, -1.0, 1.0)] * count


def test_target_that_is_sure_of_every_token_has_a_finite_ratio_above_all_others():
    known = one_score("ratio", sure(), unsure())
    assert math.isfinite(known)
    assert known > 1000 > one_score("ratio", unsure(), unsure())


def test_record_that_both_models_are_sure_of_has_the_ratio_of_equals():
    assert one_score("ratio", sure(), sure()) == 1


def test_space_of_the_difference_is_log_unless_said():
    np.testing.assert_array_equal(scores("difference"), scores("difference", space="log"))


def test_difference_in_probability_is_spv_where_neighbors_tell_nothing():
    alike = [(-8.0, 4), (-8.0, 4)]
    spv = one_score("spv", unsure(), sure(), alike)
    assert spv == pytest.approx(one_score("difference", unsure(), sure(), space="probability"))


# -------------------------------------------------------------------------------------- SURP


def test_records_of_both_kinds_are_made():
    found = [bool(surprising(r, 0.4, 2.0)[1]) for r in IDS if r != NO_TOKENS]
    assert {True, False} == set(found)


def test_only_lowest_tokens_where_the_model_was_sure_count():
    tokens = [(-9.0, -1.0, 1.0), (-8.0, -5.0, 1.0), (-7.0, -1.0, 1.0), (-1.0, -1.0, 1.0)]
    assert one_score("surp", tokens, share=0.75) == pytest.approx(-8.0)


def test_entropy_at_the_bound_does_not_count():
    tokens = [(-9.0, -2.0, 1.0), (-4.0, -1.5, 1.0)]
    assert one_score("surp", tokens, share=1.0, max_entropy=2.0) == -4


def test_record_without_a_surprising_token_scores_like_min_k():
    """No sentinel: not below every other record, nor above."""
    tokens = [(-float(i), -5.0, 1.0) for i in range(10)]
    assert one_score("surp", tokens) == one_score("min_k", tokens, share=0.4) == -7.5


def test_order_of_equal_tokens_does_not_matter():
    tokens = [(-3.0, -1.0, 1.0), (-3.0, -5.0, 1.0), (-1.0, -1.0, 1.0), (-9.0, -1.0, 1.0)]
    assert one_score("surp", tokens, share=0.5) == one_score("surp", tokens[::-1], share=0.5) == -6


# -------------------------------------------------------------------- Fast-DetectGPT, DetectGPT


def test_typical_text_is_at_zero_whatever_its_length():
    for length in (1, 7, 300):
        assert one_score("fast_detect", [(-2.5, -2.5, 1.5)] * length) == 0


def test_model_that_is_sure_of_all_tokens_gives_fast_detect_no_infinity():
    assert one_score("fast_detect", [(0.0, 0.0, 0.0)] * 3) == 0
    assert math.isfinite(one_score("fast_detect", [(-1.0, 0.0, 0.0)] * 3))


@pytest.mark.parametrize(
    "neighbors", [["gone"], ["gone", "gone"], [(-8.0, 4), "gone"], [(-8.0, 4)]]
)
def test_fewer_than_two_neighbors_give_no_spread_and_no_score(neighbors):
    assert math.isnan(one_score("detect_gpt", unsure(), None, neighbors))
    assert math.isnan(scores("detect_gpt")[IDS.index(NO_NEIGHBORS)])


def test_spread_is_over_one_less_than_the_neighbors():
    found = one_score("detect_gpt", unsure(), None, [(-3.0, 1), "gone", (-5.0, 1)])
    assert found == pytest.approx((-2.0 + 4.0) / math.sqrt(2.0))


def test_neighbors_that_are_all_one_text_give_no_infinity():
    found = one_score("detect_gpt", unsure(), None, [(-12.0, 4)] * 3)
    assert found == pytest.approx((-2.0 + 3.0) / 1e-3)
