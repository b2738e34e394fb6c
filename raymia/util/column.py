"""A column of Arrow, read as a list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.util.hashing import Hashes, string_hashes

One = TypeVar("One", covariant=True)
_AT_ONCE = 2**16


class Column(Sequence[One]):
    """A list of a column's values, of which some thousand are made at a time, as they are read.

    Examples
    --------
    >>> names = Column(pa.chunked_array([["one"], ["two"]]))
    >>> len(names), names[1], list(names)
    (2, 'two', ['one', 'two'])
    """

    def __init__(self, values: pa.ChunkedArray) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[One]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.values.slice(start, _AT_ONCE).to_pylist()

    @overload
    def __getitem__(self, place: int) -> One: ...

    @overload
    def __getitem__(self, place: slice) -> list[One]: ...

    def __getitem__(self, place: int | slice) -> Any:
        found = self.values[place]
        return found.to_pylist() if isinstance(place, slice) else found.as_py()


class ChosenRows(Sequence[Any]):
    """Some rows of a column, each of which is made when it is read, and not held.

    Examples
    --------
    >>> chosen = ChosenRows(pa.chunked_array([["one"], ["two", "three"]]), np.array([0, 2]))
    >>> len(chosen), chosen[1], list(chosen)
    (2, 'three', ['one', 'three'])
    """

    def __init__(self, values: pa.ChunkedArray, rows: npt.NDArray[np.int64]) -> None:
        self.values, self.rows = values, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return ChosenRows(self.values, self.rows[place])
        return self.values[int(self.rows[place])].as_py()


def hashes_of(names: Sequence[str]) -> Hashes:
    """:func:`raymia.util.hashing.string_hashes` of a list, or of a column that is read as one."""
    return string_hashes(
        names.values if isinstance(names, Column) else pa.array(names, pa.string())
    )
