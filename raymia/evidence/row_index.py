"""Finding many records at once: from ids in a table of evidence to their rows among an audit's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.util.hashing import string_hashes

Rows = npt.NDArray[np.int64]
Cells = npt.NDArray[np.bool_]
"""[records, indices]"""


class RowIndex:
    """The rows of records by their ids.

    Parameters
    ----------
    ids : strings [records], none null, none there twice; they are left where they lie, and 12 bytes
        are kept beside each.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        self.ids = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
        self._hashes = string_hashes(self.ids)
        order = np.argsort(self._hashes)
        self._hashes = self._hashes[order]  # one after the other: no more than 24 bytes at a time
        self._order = order.astype(np.uint32 if len(order) <= 2**32 else np.uint64)

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: pa.Array | pa.ChunkedArray) -> Rows:
        """The row of each id, int64 [n]; -1 for one that is not there."""
        rows = np.full(len(ids), -1, np.int64)
        if not len(self) or not len(ids):
            return rows
        hashes = string_hashes(ids)
        places = np.minimum(np.searchsorted(self._hashes, hashes), len(self) - 1)
        hit = np.flatnonzero(self._hashes[places] == hashes)
        if not hit.size:
            return rows
        rows[hit] = self._order[places[hit]]
        # An equal hash is no proof: the id may be of no record here, or of another one of the hash.
        given = strings_at(ids, hit)
        same = pc.fill_null(pc.equal(strings_at(self.ids, rows[hit]), given), False)
        doubtful = np.flatnonzero(~same.to_numpy(zero_copy_only=False))
        if doubtful.size:
            found = pc.index_in(given.take(pa.array(doubtful)), value_set=self.ids.cast(given.type))
            rows[hit[doubtful]] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False)
        return rows

    def cells_of(self, table: pa.Table, indices: range) -> tuple[Rows, Rows, Rows]:
        """Where the rows of a table belong in an array [records, indices].

        Parameters
        ----------
        table : with the columns ``record_id`` and ``neighbor``.

        Returns
        -------
        Of each row that belongs there, three times [n]: its number in the table, its record's row,
        and its column.
        """
        rows = self.rows_of(table["record_id"])
        columns = table["neighbor"].to_numpy().astype(np.int64) - indices.start
        picked = np.flatnonzero((rows >= 0) & (columns >= 0) & (columns < len(indices)))
        return picked, rows[picked], columns[picked]


def strings_at(texts: pa.Array | pa.ChunkedArray, rows: Rows) -> pa.Array:
    """Some of many strings, in whatever order; large strings, whose offsets never end.

    The pieces of a column are looked at one after another: ``take`` would put all of them together.
    """
    pieces = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    ends = np.cumsum([0, *map(len, pieces)])
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    found = [pa.array([], pa.large_string())]
    for number in np.unique(np.searchsorted(ends, ascending, "right") - 1).tolist():
        begin, end = np.searchsorted(ascending, ends[number : number + 2])
        own = pieces[number].take(pa.array(ascending[begin:end] - ends[number]))
        found.append(own.cast(pa.large_string()))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return pa.concat_arrays(found).take(pa.array(place))
