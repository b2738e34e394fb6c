"""What is missing: sets of (record, index), as arrays."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.plan.missing import Missing

IDS = pa.chunked_array([["a", "b"], ["c"]], pa.string())
PAIRS = st.tuples(st.sets(st.tuples(st.sampled_from("abc"), st.integers(0, 4))), st.integers(0, 2))


def made(given_pairs):
    """Missing of some pairs, over indices that begin at 0, 1 or 2, and the pairs that fit."""
    pairs, start = given_pairs
    pairs = {(record, index) for record, index in pairs if index >= start}
    cells = np.zeros((3, 5 - start), bool)
    for record, index in pairs:
        cells["abc".index(record), index - start] = True
    return Missing.of(IDS, range(start, 5), cells), pairs


@given(PAIRS, PAIRS)
def test_they_are_put_together_as_sets_of_pairs_are(left, right):
    (one, pairs), (other, others) = made(left), made(right)
    assert set((one | other).pairs()) == pairs | others
    assert set((one & other).pairs()) == pairs & others
    assert set((one - other).pairs()) == pairs - others


@given(PAIRS)
def test_they_count_list_and_name_the_same_pairs(given_pairs):
    missing, pairs = made(given_pairs)
    assert missing.count == len(pairs)
    assert bool(missing) == bool(pairs)
    by_record = {r: sorted(i for s, i in pairs if s == r) for r in "abc"}
    assert missing.by_record() == {r: indices for r, indices in by_record.items() if indices}
    if pairs:
        assert missing.records.tolist() == [bool(by_record[r]) for r in "abc"]
        lists = missing.lists(np.array([0, 2]))
        assert lists.type == pa.list_(pa.int16())
        assert lists.to_pylist() == [by_record["a"], by_record["c"]]


def test_where_nothing_or_everything_is_missing_no_cell_is_held():
    many = pa.chunked_array([[f"{n:032}" for n in range(10_000)]], pa.string())
    shape = (len(many), 20)
    everything = Missing.of(many, range(1, 21), np.ones(shape, bool))
    assert everything.count == 200_000
    assert everything.cells.strides == (0, 0)
    nothing = Missing.of(many, range(1, 21), np.zeros(shape, bool))
    assert len(pickle.dumps(nothing)) < 1_000, "a plan that has all answers is sent to many tasks"
    assert (everything - nothing) is everything
    assert not everything & nothing


def test_those_of_other_records_are_not_put_together():
    one = Missing.of(IDS, range(1), np.ones((3, 1), bool))
    same = Missing.of(pa.chunked_array([["a", "b", "c"]], pa.string()), range(1), one.cells)
    assert (one | same).count == 3
    for ids in (["a", "b"], ["a", "c", "b"]):
        cells = np.ones((len(ids), 1), bool)
        other = Missing.of(pa.chunked_array([ids], pa.string()), range(1), cells)
        with pytest.raises(ValueError, match="put together with other records"):
            one | other
