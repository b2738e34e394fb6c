"""Ids that what is none of the records must not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from raymia.evidence.row_index import RowIndex
from raymia.evidence.sharded import has_shards
from raymia.util.column import Column

RECORD = "a record"


def taken_by(records: pa.ChunkedArray) -> Mapping[str, str]:
    """What each of the ids of records stands for; of many they are left where they lie."""
    return _OfMany(records) if has_shards(len(records)) else dict.fromkeys(Column(records), RECORD)


class Either(Mapping[str, str]):
    """What an id stands for in one mapping, or else in another; none is in both.

    Examples
    --------
    >>> taken = Either({"one": "a record"}, {"two": "a prompt"})
    >>> taken["one"], taken["two"], "three" in taken
    ('a record', 'a prompt', False)
    """

    def __init__(self, first: Mapping[str, str], second: Mapping[str, str]) -> None:
        self._both = first, second

    def __getitem__(self, record_id: str) -> str:
        first, second = self._both
        return second[record_id] if record_id in second else first[record_id]

    def __iter__(self) -> Iterator[str]:
        return (record_id for one in self._both for record_id in one)

    def __len__(self) -> int:
        return sum(map(len, self._both))


class _OfMany(Mapping[str, str]):
    """12 bytes are kept beside each id."""

    def __init__(self, records: pa.ChunkedArray) -> None:
        self._index = RowIndex(records)

    def __getitem__(self, record_id: str) -> str:
        if self._index.rows_of(pa.array([record_id], pa.string()))[0] < 0:
            raise KeyError(record_id)
        return RECORD

    def __iter__(self) -> Iterator[str]:
        return iter(Column[str](self._index.ids))

    def __len__(self) -> int:
        return len(self._index)
