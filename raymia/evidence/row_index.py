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
    ids : strings [records], none null, none there twice. 16 bytes are kept beside each.
    """

    def __init__(self, ids: pa.Array | pa.ChunkedArray) -> None:
        # Offsets of 32 bits would end at 67 million ids.
        ids = ids.cast(pa.large_string())
        self.ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        hashes = string_hashes(self.ids)
        self._order = np.argsort(hashes)
        self._hashes = hashes[self._order]

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
        rows[hit] = self._order[places[hit]]
        # An equal hash is no proof: the id may be of no record here, or of another one of the hash.
        given = ids.take(pa.array(hit)).cast(pa.large_string())
        same = pc.fill_null(pc.equal(self.ids.take(pa.array(rows[hit])), given), False)
        doubtful = hit[~same.to_numpy(zero_copy_only=False)]
        if doubtful.size:
            unsure = ids.take(pa.array(doubtful)).cast(pa.large_string())
            found = pc.fill_null(pc.index_in(unsure, value_set=self.ids), -1)
            rows[doubtful] = found.to_numpy(zero_copy_only=False)
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
