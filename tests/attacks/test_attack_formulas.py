"""Each attack equals its formula, written here once more with plain loops."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_answers import (
    IDS,
    NO_NEIGHBORS,
    NO_TOKENS,
    REFERENCE,
    TARGET,
    TEXTS,
    average,
    evidence,
    f32,
    mean_log_prob,
    neighbor_means,
    one,
    scores,
)

from raymia.attacks import registry

# ------------------------------------------------------------ the formulas, once more


def loss(record, _text):
    return mean_log_prob(TARGET, record)


def zlib_score(record, text):
    return mean_log_prob(TARGET, record) / len(zlib.compress(text.encode("utf-8")))


def lowest(values, share):
    count = max(1, int(share * len(values)))
    return sum(sorted(values)[:count]) / count


def min_k(share):
    def score(record, _text):
        tokens = TARGET[0][record]
        return math.nan if isinstance(tokens, str) else lowest([f32(t[0]) for t in tokens], share)

    return score


def min_k_plus_plus(share):
    def score(record, _text):
        tokens = TARGET[0][record]
        if isinstance(tokens, str):
            return math.nan
        return lowest([(f32(p) - f32(mu)) / f32(sigma) for p, mu, sigma in tokens], share)

    return score


def difference(record, _text):
    return mean_log_prob(TARGET, record) - mean_log_prob(REFERENCE, record)


def neighbor(record, _text):
    """L(x~) - L(x), L the mean negative log-likelihood."""
    own_loss = -mean_log_prob(TARGET, record)
    return average([-mean for mean in neighbor_means(TARGET, record)]) - own_loss


def spv_code(record, _text):
    """-(v_target - v_reference), v = mean_s q(x~_s) - q(x), q = exp(-mean NLL): facts 1.2."""

    def v(answers):
        q = [math.exp(m) for m in neighbor_means(answers, record)]
        return average(q) - math.exp(mean_log_prob(answers, record))

    return -(v(TARGET) - v(REFERENCE))


def spv_log(record, _text):
    def v(answers):
        return average(neighbor_means(answers, record)) - mean_log_prob(answers, record)

    return v(REFERENCE) - v(TARGET)


FORMULAS = [
    ("loss", {}, loss),
    ("zlib", {}, zlib_score),
    *[("min_k", {"share": s}, min_k(s)) for s in (0.05, 0.2, 0.5, 1.0)],
    *[("min_k_plus_plus", {"share": s}, min_k_plus_plus(s)) for s in (0.05, 0.2, 0.5, 1.0)],
    ("difference", {}, difference),
    ("neighbor", {}, neighbor),
    ("spv", {}, spv_code),
    ("spv", {"space": "probability"}, spv_code),
    ("spv", {"space": "log"}, spv_log),
]


@pytest.mark.parametrize(
    ("name", "parameters", "formula"), FORMULAS, ids=lambda x: x if isinstance(x, str) else None
)
def test_attack_is_its_formula(name, parameters, formula):
    expected = [formula(record, text) for record, text in zip(IDS, TEXTS, strict=True)]
    assert sum(math.isfinite(x) for x in expected) >= 10, "too little to compare"
    # single precision where log-probabilities are standardized as they are stored
    tolerance = 1e-5 if name == "min_k_plus_plus" else 1e-9
    np.testing.assert_allclose(scores(name, **parameters), expected, rtol=tolerance, atol=tolerance)


def test_default_parameters_are_the_published_ones():
    np.testing.assert_array_equal(scores("min_k"), scores("min_k", share=0.2))
    np.testing.assert_array_equal(scores("min_k_plus_plus"), scores("min_k_plus_plus", share=0.2))
    np.testing.assert_array_equal(scores("spv"), scores("spv", space="probability"))


@given(st.lists(st.tuples(st.floats(-8, -0.01), st.floats(-8, -0.01)), min_size=1, max_size=10))
def test_symmetric_pairs_of_the_paper_are_the_neighbors_of_the_code(pairs):
    """(1/2N) sum_n [p(x+) + p(x-)] - p(x), N pairs, is mean_s q(x~_s) - q(x) with 2N neighbors."""
    n, own = len(pairs), {"target": -1.25, "reference": -2.5}
    shift = {"target": 0.0, "reference": -0.5}

    def variation(model):
        both = [math.exp(plus + shift[model]) + math.exp(minus + shift[model])
                for plus, minus in pairs]  # fmt: skip
        return sum(both) / (2 * n) - math.exp(own[model])

    def answers(model):
        flat = [x + shift[model] for pair in pairs for x in pair]
        return {"r": [(own[model], -1.0, 1.0)]}, {("r", i): (x, 1) for i, x in enumerate(flat, 1)}

    given_evidence = evidence(answers("target"), answers("reference"), ["r"], ["t"], 2 * n)
    paper = -(variation("target") - variation("reference"))  # members are low: facts 1.1
    assert scores("spv", given_evidence)[0] == pytest.approx(paper, rel=1e-6, abs=1e-9)


# ------------------------------------------------------------------------ record by record

ON_TOKENS_AND_NEIGHBORS = [
    name
    for name, kind in registry().items()
    if set(kind.asks) <= {"tokens", "neighbors"}
    and not kind.needs & {"shadows", "population", "corpus", "other_scores"}
]


@pytest.mark.parametrize("name", ON_TOKENS_AND_NEIGHBORS)
def test_score_of_a_record_does_not_depend_on_the_others(name):
    """To the last bit: more records must not change what was reported of the first."""
    alone = [scores(name, evidence(ids=[r], texts=[t]))[0] for r, t in zip(IDS, TEXTS, strict=True)]
    np.testing.assert_array_equal(scores(name), alone)


# ------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", ON_TOKENS_AND_NEIGHBORS)
def test_record_without_tokens_has_no_score(name):
    found = scores(name)
    assert np.isnan(found[IDS.index(NO_TOKENS)])
    assert found.dtype == np.float64
    assert found.shape == (12,)


@pytest.mark.parametrize("name", ["difference", "ratio", "ez", "wbc", "spv"])
def test_record_without_reference_evidence_has_no_score(name):
    reference = ({**REFERENCE[0], "r1": "not finite"}, REFERENCE[1])
    found = scores(name, evidence(reference=reference))
    assert np.isnan(found[[1, 3]]).all()
    assert np.isfinite(found[2])


@pytest.mark.parametrize("name", ["neighbor", "detect_gpt", "spv"])
def test_record_without_neighbors_has_no_score(name):
    assert np.isnan(scores(name)[IDS.index(NO_NEIGHBORS)])


@pytest.mark.parametrize("name", ["neighbor", "detect_gpt", "spv"])
def test_neighbors_that_could_not_be_made_are_left_out_of_the_mean(name):
    """Not counted as zero: that would make a record with fewer neighbors look like another."""
    tokens = {"r": one(-1.0)}
    three = {("r", 1): (-2.0, 1), ("r", 2): "not filled", ("r", 3): (-4.0, 1)}
    two = {("r", 1): (-2.0, 1), ("r", 2): (-4.0, 1)}
    with_gap = evidence((tokens, three), (tokens, two), ["r"], ["t"], 3)
    without = evidence((tokens, two), (tokens, two), ["r"], ["t"], 2)
    assert scores(name, with_gap)[0] == pytest.approx(scores(name, without)[0])


def test_model_that_is_sure_of_a_token_gives_min_k_plus_plus_no_infinity():
    sure = {"r": [(0.0, 0.0, 0.0), (-1.0, -1.0, 1.0)]}
    found = scores("min_k_plus_plus", evidence((sure, {}), (sure, {}), ["r"], ["t"], 0), share=1.0)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("share", "length", "count"),
    [(0.2, 1, 1), (0.2, 4, 1), (0.2, 5, 1), (0.2, 9, 1), (0.2, 10, 2), (0.29, 100, 28),
     (0.5, 3, 1), (1.0, 7, 7), (0.001, 50, 1)],
)  # fmt: skip
def test_min_k_takes_at_least_one_token_and_rounds_down(share, length, count):
    tokens = {"r": [(-float(i), -1.0, 1.0) for i in range(length)]}
    found = scores("min_k", evidence((tokens, {}), (tokens, {}), ["r"], ["t"], 0), share=share)
    assert count == max(1, int(share * length))
    assert found[0] == pytest.approx(-np.arange(length - count, length).mean())


def test_order_of_tokens_does_not_matter_to_min_k():
    tokens = {"r": [(-x, -1.0, 1.0) for x in (3.0, 9.0, 1.0, 7.0, 5.0)]}
    backwards = {"r": tokens["r"][::-1]}
    for name in ("min_k", "min_k_plus_plus"):
        a, b = (
            scores(name, evidence((t, {}), (t, {}), ["r"], ["t"], 0), share=0.5)[0]
            for t in (tokens, backwards)
        )
        assert a == b


def test_zlib_takes_the_bytes_of_the_utf8_text():
    tokens = {"a": one(-2.0), "b": one(-2.0)}
    texts = ["plain ascii text", "plain äscii text"]
    found = scores("zlib", evidence((tokens, {}), (tokens, {}), ["a", "b"], texts, 0))
    assert found[0] != found[1]
    assert found[1] == pytest.approx(-2.0 / len(zlib.compress(texts[1].encode())))
