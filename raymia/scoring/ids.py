"""Whether record ids are there once, in memory of eight bytes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.util.hashing import string_hashes

Hashes = npt.NDArray[np.uint64]
NAMED = 5
"""Records that an error names."""


def repeated(ids: pa.ChunkedArray) -> list[str]:
    """The ids that are there more than once, sorted; exact, though hashes find them."""
    hashes = string_hashes(ids)
    rows = np.flatnonzero(np.isin(hashes, repeated_hashes(hashes)))
    counted = pc.value_counts(ids.take(pa.array(rows)))
    return sorted(pair["values"] for pair in counted.to_pylist() if pair["counts"] > 1)


def repeated_hashes(hashes: Hashes) -> Hashes:
    """The hashes that are there more than once."""
    ascending = np.sort(hashes)
    again: Hashes = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    return again
