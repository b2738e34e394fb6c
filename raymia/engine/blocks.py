"""Blocks of records, made one at a time from what a plan misses; what they are is in ``stage``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from raymia.engine.stage import FAILED, todo_column
from raymia.plan.missing import lists_of
from raymia.plan.stages import Stage

SHELF_ROWS = 2**16
"""Records whose stored neighbors are held at once."""


class Keeper(Protocol):
    """Keeps tables until they are needed."""

    def put(self, table: pa.Table) -> Any:
        """Keep a table; gives what it is had again by."""

    def get(self, kept: Any) -> pa.Table:
        """A table that is kept."""


class InMemory:
    """Keeps tables as they are."""

    def put(self, table: pa.Table) -> pa.Table:
        return table

    def get(self, kept: pa.Table) -> pa.Table:
        return kept


def make_blocks(
    stages: Sequence[Stage],
    records: pa.Table,
    neighbors: Iterable[pa.Table],
    block_records: int | Callable[[], int],
    keeper: Keeper | None = None,
) -> Iterator[pa.Table]:
    """Cut the records that something is to be asked about into blocks.

    Parameters
    ----------
    stages : of one stream.
    records : columns ``record_id`` and ``payload``; those that the stages were planned with.
    neighbors : see :func:`raymia.plan.stages.stored_neighbors`.
    block_records : rows of a block; what is called says it before each.
    keeper : of neighbors, of which there may be many times more than records; default: in memory.

    Yields
    ------
    Tables of at most so many rows, in the order of the records.
    """
    asking = [planned for stage in stages for planned in stage.questions if planned.missing]
    if not asking:
        return
    asked = np.zeros(records.num_rows, bool)
    asking[0].missing.check_is_about(records["record_id"])
    for planned in asking:
        planned.missing.check_is_about(asking[0].missing.ids)
        asked |= planned.missing.records
    payload_type = records.schema.field("payload").type
    schema = pa.schema(
        [
            ("record_id", pa.string()),
            ("payload", payload_type),
            ("neighbor", pa.list_(pa.int16())),
            ("neighbor_payload", pa.list_(payload_type)),
            FAILED,
            *((todo_column(p.key), pa.list_(pa.int16())) for p in asking),
        ]
    )
    shelves = _Shelves(neighbors, payload_type, keeper or InMemory())
    chosen = np.flatnonzero(asked)
    while chosen.size:
        count = block_records() if callable(block_records) else block_records
        rows, chosen = chosen[:count], chosen[count:]
        first, stop = int(rows[0]), int(rows[-1]) + 1
        own = records.slice(first, stop - first).filter(pa.array(asked[first:stop]))
        known = shelves.of(first, stop)
        counts = np.bincount(np.searchsorted(rows, known["row"]), minlength=rows.size)
        columns = [
            own["record_id"],
            own["payload"],
            lists_of(known["neighbor"].combine_chunks(), counts),
            lists_of(known["payload"].combine_chunks(), counts),
            pa.array([[]] * rows.size, FAILED.type),
            *(p.missing.lists(rows) for p in asking),
        ]
        yield pa.table(columns, schema=schema).combine_chunks()


class _Shelves:
    """Stored neighbors by the records they are of, with a keeper until blocks need them.

    They lie in the store's parts in any order; here are those of one part and of some thousand
    records alone.
    """

    def __init__(
        self, neighbors: Iterable[pa.Table], payload_type: pa.DataType, keeper: Keeper
    ) -> None:
        self._keeper = keeper
        schema = pa.schema(
            [("row", pa.int64()), ("neighbor", pa.int16()), ("payload", payload_type)]
        )
        self._kept: dict[int, list[Any]] = {}
        for table in (table.select(schema.names).cast(schema) for table in neighbors):
            shelf = table["row"].to_numpy() // SHELF_ROWS
            for number in np.unique(shelf):
                piece = table.take(pa.array(np.flatnonzero(shelf == number)))
                self._kept.setdefault(int(number), []).append(keeper.put(piece))
        self._next = 0
        self._held = schema.empty_table()

    def of(self, first: int, stop: int) -> pa.Table:
        """The neighbors of a range of records, sorted by ``row``; each range comes after the one
        before it, whose neighbors are let go."""
        while self._next * SHELF_ROWS < stop:
            taken = [self._keeper.get(kept) for kept in self._kept.pop(self._next, ())]
            self._held = pa.concat_tables([self._held, *taken]).sort_by("row")
            self._next += 1
        rows = self._held["row"].to_numpy()
        begin, middle = (int(n) for n in np.searchsorted(rows, [first, stop]))
        found = self._held.slice(begin, middle - begin)
        self._held = self._held.slice(middle)
        return found
