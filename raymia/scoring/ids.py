"""Whether record ids are there once, in memory of 17 bytes each."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from raymia.util.hashing import rows_alike, string_hashes

NAMED = 5
"""Records that an error names."""


def repeated(ids: pa.ChunkedArray) -> list[str]:
    """The ids that are there more than once, sorted; exact, though hashes find them."""
    rows = rows_alike(string_hashes(ids))
    if not rows.size:
        return []
    counted = pc.value_counts(ids.take(pa.array(rows)))
    return sorted(pair["values"] for pair in counted.to_pylist() if pair["counts"] > 1)
