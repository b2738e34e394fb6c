"""What a question has not been asked about yet, of many records at a byte each, or less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.evidence.row_index import Cells, strings_at


@dataclass(frozen=True, eq=False)
class Missing:
    """Pairs of a record and an index.

    Where nothing is missing, no record is held either, so that such a plan is small wherever it is
    sent. Sets that are put together are about the same records.

    Attributes
    ----------
    ids : strings [records], shared by all that one plan says of them.
    indices : that the question is asked about.
    cells : bool [records, indices], true where there is no answer.
    """

    ids: pa.ChunkedArray
    indices: range
    cells: Cells

    @classmethod
    @cache
    def nothing(cls, indices: range) -> Missing:
        return cls(pa.chunked_array([], pa.string()), indices, np.zeros((0, len(indices)), bool))

    @classmethod
    def of(cls, ids: pa.ChunkedArray, indices: range, cells: Cells) -> Missing:
        """What is true in ``cells``; all and nothing take no memory."""
        if not cells.any():
            return cls.nothing(indices)
        if cells.all():
            cells = np.broadcast_to(np.True_, cells.shape)
        return cls(ids, indices, cells)

    @cached_property
    def count(self) -> int:
        """How many pairs there are."""
        return int(np.count_nonzero(self.cells))

    def __bool__(self) -> bool:
        return self.count > 0

    @property
    def records(self) -> npt.NDArray[np.bool_]:
        """Whether something is missing of each record, [records]."""
        missing: npt.NDArray[np.bool_] = np.any(self.cells, axis=1)
        return missing

    def pairs(self) -> Iterator[tuple[str, int]]:
        """Record ids and indices one by one: for few records."""
        rows, columns = np.nonzero(self.cells)
        ids = strings_at(self.ids, rows).to_pylist()
        return zip(ids, (int(c) + self.indices.start for c in columns), strict=True)

    def by_record(self) -> dict[str, list[int]]:
        """Indices by record id, of the records of which something is missing: for few records."""
        found: dict[str, list[int]] = {}
        for record, index in self.pairs():
            found.setdefault(record, []).append(index)
        return found

    def lists(self, rows: npt.NDArray[np.int64] | slice) -> pa.Array:
        """The indices that are missing of some rows: an Arrow list of int16 for each."""
        cells = self.cells[rows]
        return lists_of(
            pa.array((np.nonzero(cells)[1] + self.indices.start).astype(np.int16)),
            np.count_nonzero(cells, axis=1),
        )

    def __or__(self, other: Missing) -> Missing:
        if not self or not other:
            return self if self else other
        indices = range(
            min(self.indices.start, other.indices.start), max(self.indices.stop, other.indices.stop)
        )
        return Missing.of(self.ids, indices, self._over(indices) | other._beside(self, indices))

    def __and__(self, other: Missing) -> Missing:
        if not self or not other:
            return Missing.nothing(self.indices)
        return Missing.of(self.ids, self.indices, self.cells & other._beside(self, self.indices))

    def __sub__(self, other: Missing) -> Missing:
        if not self or not other:
            return self
        return Missing.of(self.ids, self.indices, self.cells & ~other._beside(self, self.indices))

    def _beside(self, other: Missing, indices: range) -> Cells:
        self.check_is_about(other.ids)
        return self._over(indices)

    def check_is_about(self, ids: pa.ChunkedArray) -> None:
        """Raise a ValueError if these are not the records that the rows stand for."""
        if self.ids is ids:
            return
        if not self.ids.equals(ids):
            raise ValueError(
                f"what is missing of {len(self.ids)} records was put together with other records, "
                f"of which there are {len(ids)}; plan them together"
            )

    def _over(self, indices: range) -> Cells:
        """The cells with columns for other indices; indices that the question has not are false."""
        if indices == self.indices:
            return self.cells
        cells = np.zeros((len(self.ids), len(indices)), bool)
        start = max(indices.start, self.indices.start)
        stop = min(indices.stop, self.indices.stop)
        if start < stop:
            own = self.cells[:, start - self.indices.start : stop - self.indices.start]
            cells[:, start - indices.start : stop - indices.start] = own
        return cells


def lists_of(values: pa.Array, lengths: npt.NDArray[np.integer]) -> pa.Array:
    """Cut values into lists of these lengths, one after another."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)
