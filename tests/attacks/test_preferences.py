"""Attacks on preferences equal their formulas, written here once more."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from made_answers import IDS, NO_TOKENS, REFERENCE, TARGET, TEXTS, evidence, f32

from raymia.attacks import build
from raymia.evidence.text import record_sums

OTHER = {name: [-3.0 - 2.5 * n - seed for n in range(len(IDS))] for seed, name in
         enumerate(("target", "reference"))}  # fmt: skip
SIGNS = [1.0 if n % 3 else -1.0 for n in range(len(IDS))]


def given(signs=SIGNS, *, alone=False):
    plain = evidence()
    return replace(
        plain,
        target=replace(plain.target, other_answer=np.array(OTHER["target"])),
        reference=None
        if alone
        else replace(plain.reference, other_answer=np.array(OTHER["reference"])),
        signs=np.array(signs),
    )


def total(answers, place):
    tokens = answers[0][IDS[place]]
    return math.nan if isinstance(tokens, str) else sum(f32(t[0]) for t in tokens)


def margin(place):
    of_target = total(TARGET, place) - OTHER["target"][place]
    return SIGNS[place] * (of_target - (total(REFERENCE, place) - OTHER["reference"][place]))


def reward(place):
    return SIGNS[place] * (total(TARGET, place) - total(REFERENCE, place))


def reward_of_other(place):
    return -SIGNS[place] * (OTHER["target"][place] - OTHER["reference"][place])


@pytest.mark.parametrize(
    ("name", "formula"),
    [("margin", margin), ("reward", reward), ("reward_of_other", reward_of_other)],
)
def test_attack_is_its_formula(name, formula):
    found = build(name, {}, "attacks[0]").score(given())
    np.testing.assert_allclose(found, [formula(n) for n in range(len(TEXTS))], rtol=1e-6)


def test_a_margin_alone_is_that_of_the_target():
    found = build("margin", {}, "attacks[0]").score(given(alone=True))
    expected = [SIGNS[n] * (total(TARGET, n) - OTHER["target"][n]) for n in range(len(IDS))]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert math.isnan(found[IDS.index(NO_TOKENS)])


def test_the_halves_of_a_margin_are_its_whole():
    whole, own, other = (
        build(name, {}, "attacks[0]").score(given())
        for name in ("margin", "reward", "reward_of_other")
    )
    np.testing.assert_allclose(own + other, whole, rtol=1e-6)


def cut(model, *records):
    is_cut = np.isin(IDS, records)
    return replace(model, tokens=replace(model.tokens, is_cut=is_cut))


def scored(name, found):
    scores = build(name, {}, "attacks[0]").score(found)
    return {record for record, score in zip(IDS, scores, strict=True) if not math.isnan(score)}


def test_answers_of_which_models_read_different_parts_have_no_score():
    """Sums over different tokens would differ by hundreds of nats, whatever was trained on."""
    found, all_scored = given(), {*IDS} - {NO_TOKENS}
    alone = replace(found, target=cut(found.target, "r5"), reference=None)
    assert scored("margin", alone) == all_scored - {"r5"}
    tokens = found.reference.tokens
    start, end = tokens.offsets[IDS.index("r6") :][:2]
    ids = tokens.token_ids.copy()
    ids[start:end] += 1
    differs = replace(
        found, reference=replace(found.reference, tokens=replace(tokens, token_ids=ids))
    )
    for name in ("margin", "reward"):
        assert scored(name, replace(found, target=cut(found.target, "r5"))) == all_scored
        assert scored(name, differs) == all_scored - {"r6"}


def test_the_other_answer_counts_where_all_of_it_was_read():
    table = pa.table({
        "record_id": ["a", "b", "c"], "error": [None, None, "why"],
        "log_prob_sum": [-4.0, -5.0, None], "token_count": [2, 2, None],
        "truncated": [False, True, False],
    })  # fmt: skip
    np.testing.assert_array_equal(record_sums(table, ["c", "b", "a"]), [np.nan, np.nan, -4.0])
