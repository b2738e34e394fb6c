"""The sampler draws from the softmax, and from nothing that depends on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from raymia.models.sampling import TOO_CLOSE, CounterSampler, StopAtOwnToken
from raymia.util.draws import stream_key

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5, 1.5])
MANY = 20_000


def drawn(keys, logits, *, steps=1, temperature=1.0, top_k=None):
    """The token each key draws at each step, [steps, keys]."""
    sampler = CounterSampler(list(keys), temperature, top_k)
    scores = logits.expand(len(sampler.keys), -1)
    return np.array([sampler(None, scores).argmax(-1).tolist() for _ in range(steps)])


def keys(count, *parts):
    return [stream_key(*parts, number) for number in range(count)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature):
    tokens = drawn(keys(MANY, "softmax"), LOGITS, temperature=temperature)[0]
    expected = (LOGITS.double() / temperature).softmax(-1).numpy() * MANY
    assert chisquare(np.bincount(tokens, minlength=8), expected).pvalue > 1e-3


@pytest.mark.parametrize("top_k", [1, 3, 8, 100])
def test_draws_follow_the_softmax_of_the_k_likeliest(top_k):
    tokens = drawn(keys(MANY, "top k"), LOGITS, top_k=top_k)[0]
    kept = LOGITS.argsort(descending=True)[:top_k].tolist()
    counts = np.bincount(tokens, minlength=8)
    assert counts.sum() == counts[kept].sum(), "a token outside the k likeliest was drawn"
    if top_k > 1:
        expected = LOGITS[kept].double().softmax(-1).numpy() * MANY
        assert chisquare(counts[kept], expected).pvalue > 1e-3


def test_draws_follow_the_softmax_along_the_steps_of_one_key():
    tokens = drawn(keys(1, "steps"), LOGITS, steps=5_000)[:, 0]
    expected = LOGITS.double().softmax(-1).numpy() * 5_000
    assert chisquare(np.bincount(tokens, minlength=8), expected).pvalue > 1e-3


def test_successive_steps_are_independent():
    first, second = drawn(keys(MANY, "independence"), LOGITS, steps=2)
    table = np.zeros((8, 8))
    np.add.at(table, (first, second), 1)
    assert chi2_contingency(table).pvalue > 1e-3


def test_neighboring_keys_are_independent():
    tokens = drawn(range(2 * MANY), LOGITS)[0]  # consecutive integers: the hardest keys
    table = np.zeros((8, 8))
    np.add.at(table, (tokens[::2], tokens[1::2]), 1)
    assert chi2_contingency(table).pvalue > 1e-3


def test_draw_does_not_depend_on_the_rows_beside_it():
    some = keys(50, "rows")
    together = drawn(some, LOGITS, steps=3)
    assert (drawn(some[::-1], LOGITS, steps=3)[:, ::-1] == together).all()
    for number in (0, 7, 49):
        assert (drawn([some[number]], LOGITS, steps=3)[:, 0] == together[:, number]).all()


def test_same_key_draws_the_same_and_another_key_another():
    a, b = keys(2, "seed 0"), keys(2, "seed 1")
    assert (drawn(a, LOGITS, steps=40) == drawn(a, LOGITS, steps=40)).all()
    assert (drawn(a, LOGITS, steps=40) != drawn(b, LOGITS, steps=40)).any()


# ---------------------------------------------------------------------- close calls


def scores_with_gap(key, gap, vocabulary=8):
    """Logits whose two largest perturbed values are ``gap`` apart."""
    from raymia.util.draws import gumbels

    noise = gumbels(torch.tensor([key]), 0, vocabulary)[0]
    perturbed = torch.full((vocabulary,), -5.0, dtype=torch.float64)
    perturbed[2], perturbed[5] = 1.0, 1.0 - gap
    return (perturbed - noise)[None]


@pytest.mark.parametrize(("gap", "close"), [(TOO_CLOSE / 2, True), (TOO_CLOSE * 2, False)])
def test_draw_that_rounding_could_decide_is_marked(gap, close):
    sampler = CounterSampler([11], 1.0, None)
    sampler(None, scores_with_gap(11, gap))
    assert sampler.close_calls == [close]


@pytest.mark.parametrize(("gap", "close"), [(TOO_CLOSE / 2, True), (TOO_CLOSE * 2, False)])
def test_edge_of_the_k_likeliest_that_rounding_could_move_is_marked(gap, close):
    logits = torch.tensor([[9.0, 1.0, 1.0 - gap, -3.0]], dtype=torch.float64)
    sampler = CounterSampler([3], 1.0, 2)
    sampler(None, logits)
    assert sampler.close_calls == [close]


def test_mark_stays_on_its_row_through_later_steps():
    sampler = CounterSampler([11, 12], 1.0, None)
    clear = torch.zeros(1, 8, dtype=torch.float64)
    clear[0, 3] = 100.0
    sampler(None, torch.cat([scores_with_gap(11, TOO_CLOSE / 2), clear]))
    sampler(None, torch.cat([clear, clear]))
    assert sampler.close_calls == [True, False]


def test_row_stops_at_its_own_token_alone():
    stop = StopAtOwnToken([7, 8])
    assert stop(torch.tensor([[1, 7], [1, 7]]), None).tolist() == [True, False]
    assert stop(torch.tensor([[7, 1], [1, 8]]), None).tolist() == [False, True]
