"""Evidence on many records, had for some of them after the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import EvidenceKey, EvidenceStore, first_of_each
from raymia.storage.scratch_table import ScratchTable

SHARD_RECORDS = 2**17
SHARD_BYTES = 2**26
"""Of the payloads of a shard, which may be one that is larger: of texts some 15 million tokens,
whose answers take 20 bytes each."""
LOOKED_AT = 2**10
"""Records that are put into a shard together, unless they are more than a shard."""
EVERY_SHARD = -1
"""Stands for records that are in all of them."""


def has_shards(records: int) -> bool:
    """Whether so many records are more than a shard."""
    return records > SHARD_RECORDS


def shards_of(payloads: pa.ChunkedArray) -> list[slice]:
    """The rows of each shard: so many records, and payloads of so many bytes unless it is one
    record, at most."""
    ends, count, size = [0], 0, 0
    for rows, payload_bytes in _pieces(payloads, min(LOOKED_AT, SHARD_RECORDS)):
        if count and (count + rows > SHARD_RECORDS or size + payload_bytes > SHARD_BYTES):
            ends.append(ends[-1] + count)
            count, size = 0, 0
        count, size = count + rows, size + payload_bytes
    return [slice(*pair) for pair in pairwise([*ends, len(payloads)])]


def _pieces(payloads: pa.ChunkedArray, at_once: int) -> Iterator[tuple[int, int]]:
    """Records one after another that a shard has room for: how many, and their payloads' bytes."""
    for start in range(0, len(payloads), at_once):
        piece = payloads.slice(start, at_once)
        if at_once > 1 and piece.nbytes > SHARD_BYTES:
            yield from _pieces(piece, -(-at_once // 2))
        else:
            yield len(piece), piece.nbytes


class ShardedEvidence(EvidenceStore):
    """A store that, asked for all rows of a key, gives those of one shard of the records.

    A key's parts hold the records in any order, so each is read once, and its rows are put into a
    scratch file by shard. What is held is the rows of one shard.

    Parameters
    ----------
    index : of all records whose evidence is read.
    shards : of the first of them; the ones after these are in every shard.

    Attributes
    ----------
    shard : the number of the one that is read.
    """

    def __init__(self, store: EvidenceStore, index: RowIndex, shards: Sequence[slice]) -> None:
        super().__init__(store.folder.url)
        self._index, self._shards = index, shards
        self._ends = np.array([own.stop for own in shards])
        self._pieces: dict[str, dict[int, list[pa.Table]]] = {}
        self.shard = 0

    def shards(self) -> Iterator[slice]:
        """The rows of each shard, which is read from then on."""
        for number, rows in enumerate(self._shards):
            self.shard = number
            yield rows

    def read(
        self,
        key: EvidenceKey,
        columns: list[str] | None = None,
        records: Sequence[str] | None = None,
    ) -> pa.Table | None:
        """See :meth:`EvidenceStore.read`; without columns and records, the rows of the shard."""
        if columns is not None or records is not None:
            return super().read(key, columns, records)
        if key.hash not in self._pieces:
            self._pieces[key.hash] = self._sorted_out(key)
        pieces = self._pieces[key.hash]
        found = [*pieces.get(self.shard, ()), *pieces.get(EVERY_SHARD, ())]
        return first_of_each(pa.concat_tables(found)) if found else None

    def _sorted_out(self, key: EvidenceKey) -> dict[int, list[pa.Table]]:
        """The rows of a key by shard, in the order of the names of their parts."""
        scratch: ScratchTable | None = None
        written: list[tuple[str, int]] = []
        for name, part in self._parts(key.folder, None, None, at_once=1):
            rows = self._index.rows_of(part["record_id"])
            shard = np.searchsorted(self._ends, rows, "right")
            shard[shard == len(self._shards)] = EVERY_SHARD
            for number in np.unique(shard[rows >= 0]).tolist():
                piece = part.filter(pa.array((shard == number) & (rows >= 0))).combine_chunks()
                scratch = scratch or ScratchTable(piece.schema)
                scratch.add(piece)
                written.append((name, number))
        found: dict[int, list[pa.Table]] = {}
        if scratch is not None:
            pieces = zip(written, scratch.table().to_batches(), strict=True)
            for (_, number), piece in sorted(pieces, key=lambda one: one[0]):
                found.setdefault(number, []).append(pa.Table.from_batches([piece]))
        return found
