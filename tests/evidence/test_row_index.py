"""Finding records by id, many at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.evidence import row_index
from raymia.evidence.row_index import RowIndex

IDS = st.lists(st.text("abc", max_size=4), unique=True, max_size=20)


def rows_by_hand(ids, asked):
    return [ids.index(one) if one in ids else -1 for one in asked]


@given(IDS, st.lists(st.text("abc", max_size=4), max_size=20))
def test_each_id_has_the_row_it_stands_in_and_others_none(ids, asked):
    index = RowIndex(pa.array(ids, pa.string()))
    assert index.rows_of(pa.array(asked, pa.string())).tolist() == rows_by_hand(ids, asked)


@given(IDS, st.lists(st.text("abc", max_size=4), max_size=20))
def test_ids_whose_hashes_clash_are_told_apart(ids, asked):
    """Two in 2^64 do; here all of one length do."""
    with pytest.MonkeyPatch.context() as patch:
        lengths = lambda texts: np.array([len(t) for t in texts.to_pylist()], np.uint64)  # noqa: E731
        patch.setattr(row_index, "string_hashes", lengths)
        index = RowIndex(pa.array(ids, pa.string()))
        assert index.rows_of(pa.array(asked, pa.string())).tolist() == rows_by_hand(ids, asked)


def test_ids_in_several_pieces_are_found():
    index = RowIndex(pa.chunked_array([["a", "b"], [], ["c"]], pa.string()))
    asked = pa.chunked_array([["c"], ["x", "b"]], pa.string())
    assert index.rows_of(asked).tolist() == [2, -1, 1]
    assert len(index) == 3


def test_a_row_belongs_to_a_cell_if_its_record_and_its_index_are_asked_about():
    table = pa.table(
        {"record_id": ["b", "x", "a", "b"], "neighbor": pa.array([2, 1, 0, 1], pa.int16())}
    )
    picked, rows, columns = RowIndex(pa.array(["a", "b"])).cells_of(table, range(1, 3))
    assert (picked.tolist(), rows.tolist(), columns.tolist()) == ([0, 3], [1, 1], [1, 0])
