"""Evidence is laid out by record, whatever the order it was stored in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_evidence import neighbor_table, token_table

from raymia.evidence.text import neighbor_evidence, segment_mean, token_evidence

ANSWERS = {
    "b": [(-1.0, -2.0, 0.5), (-3.0, -2.5, 1.5)],
    "x": [(-9.0, -9.0, 9.0)],
    "a": [(-0.5, -1.0, 2.0)],
    "e": "could not be answered",
}


def test_records_own_their_own_tokens_in_their_own_order():
    tokens = token_evidence(token_table(ANSWERS), ["a", "b"])
    assert tokens.counts.tolist() == [1, 2]
    assert [v.tolist() for v in tokens.per_record(tokens.log_prob)] == [[-0.5], [-1.0, -3.0]]
    assert [v.tolist() for v in tokens.per_record(tokens.mean_log_prob)] == [[-1.0], [-2.0, -2.5]]
    assert [v.tolist() for v in tokens.per_record(tokens.std_log_prob)] == [[2.0], [0.5, 1.5]]
    assert tokens.token_ids.tolist() == [0, 0, 1]
    assert tokens.is_top1.tolist() == [True, False, False]


def test_records_without_evidence_or_with_an_error_own_nothing():
    tokens = token_evidence(token_table(ANSWERS), ["missing", "b", "e", "a", "missing too"])
    assert tokens.counts.tolist() == [0, 2, 0, 1, 0]
    mean = tokens.mean()
    assert np.isnan(mean[[0, 2, 4]]).all()
    assert mean[[1, 3]].tolist() == [-2.0, -0.5]


@pytest.mark.parametrize("table", [None, token_table({}), token_table({"e": "error"})])
def test_no_evidence_at_all_is_nan_for_everyone(table):
    tokens = token_evidence(table, ["a", "e"])
    assert tokens.counts.tolist() == [0, 0]
    assert np.isnan(tokens.mean()).all()
    assert [len(v) for v in tokens.per_record(tokens.log_prob)] == [0, 0]


def test_table_of_many_chunks_is_read_as_one():
    import pyarrow as pa

    names = ("b", "x", "a", "e")
    table = pa.concat_tables([token_table({name: ANSWERS[name]}) for name in names])
    tokens = token_evidence(table, ["a", "b"])
    assert [v.tolist() for v in tokens.per_record(tokens.log_prob)] == [[-0.5], [-1.0, -3.0]]


@given(
    st.lists(st.lists(st.floats(-50, 0, width=32), max_size=6), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_layout_is_that_of_a_dictionary(values, random):
    answers = {f"r{i}": [(v, v, 1.0) for v in row] for i, row in enumerate(values) if row}
    stored = list(answers.items())
    random.shuffle(stored)
    ids = [f"r{i}" for i in range(len(values))]
    tokens = token_evidence(token_table(dict(stored)), ids)
    for row, found in zip(values, tokens.per_record(tokens.log_prob), strict=True):
        assert found.tolist() == row


def test_neighbors_stand_in_their_own_column():
    table = neighbor_table(
        {("b", 2): (-6.0, 3), ("a", 1): (-1.0, 4), ("b", 1): "not filled", ("z", 1): (-1.0, 1),
         ("a", 3): (-1.0, 1)}
    )  # fmt: skip
    mean = neighbor_evidence(table, ["a", "b", "c"], 2).mean_log_prob
    np.testing.assert_array_equal(mean, [[-0.25, np.nan], [np.nan, -2.0], [np.nan, np.nan]])


def test_no_neighbors_are_nan_for_everyone():
    mean = neighbor_evidence(None, ["a", "b"], 3).mean_log_prob
    assert mean.shape == (2, 3)
    assert np.isnan(mean).all()


@given(st.lists(st.lists(st.floats(-100, 100, width=32), max_size=5), min_size=1, max_size=30))
def test_segment_mean_is_the_mean_of_each_segment(segments):
    values = np.array([v for s in segments for v in s], np.float32)
    offsets = np.cumsum([0, *map(len, segments)])
    expected = [np.mean(np.array(s, np.float64)) if s else np.nan for s in segments]
    np.testing.assert_allclose(segment_mean(values, offsets), expected, rtol=1e-9, atol=1e-9)


def test_segment_mean_is_exact_after_a_million_tokens():
    """A running sum must not wear away the digits of the records at the end."""
    values = np.concatenate([np.full(10**6, -20.0), [-1.25e-3, -2.5e-3]]).astype(np.float32)
    mean = segment_mean(values, np.array([0, 10**6, 10**6 + 2]))
    assert mean[1] == pytest.approx(float(values[-2:].astype(float).mean()), abs=1e-8)
