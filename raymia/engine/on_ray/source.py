"""The blocks of a stream, cut while it runs, a few before actors ask for them.

Ray Data wants to know all blocks before it starts one, and of one size for actors on GPUs. How many
records make a good block is known only when some were asked about. So what Ray Data passes around
are tables of one row. Those that enter a stream are numbers, and an actor of the first pool fetches
the block of a number from a shelf, which the driver fills. Those that actors pass on hold a block.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raymia.engine.on_ray.board import RemoteBoard

AHEAD = 3
"""Blocks that lie on a shelf and were not asked for yet, at least."""
LOOK_SECONDS = 0.2
WAIT_SECONDS = (0.005, 0.1)
"""Between looks for a block: at first, and at most."""
IDLE_SECONDS = 0.2
"""Before a number without a block is passed on: there may be many of them, and the stream ends when
the last block has passed."""
SMALLER = 4
"""By how much blocks may become smaller than the first."""


class Source:
    """The driver's side.

    Parameters
    ----------
    key : of the stream, on the board.
    blocks : makes the blocks; it is given what says, before each, how many records are wanted.
    records : of all blocks together.
    wanted : how many records a block should have, by what is known now.
    most : blocks at most, unless the size of the first makes more; where there would be more, they
        grow.

    Attributes
    ----------
    numbers : as many as there may be blocks.
    expected : blocks, if all are of the size that the first will have.
    """

    def __init__(
        self,
        board: RemoteBoard,
        key: str,
        blocks: Callable[[Callable[[], int]], Iterator[pa.Table]],
        *,
        records: int,
        wanted: Callable[[], int],
        most: int,
    ) -> None:
        self._board, self._key, self._wanted = board, key, wanted
        self._last = wanted()
        self.expected = math.ceil(records / self._last)
        self.numbers = min(records, max(self.expected, min(most, SMALLER * self.expected)))
        self._left, self._asked = records, 0
        self._blocks = blocks(self._size)
        self._made = 0
        self._held: dict[int, list[Any]] = {}
        self._new: dict[int, list[Any]] = {}
        self._gone: list[int] = []
        self._end: int | None = None
        self._maker = ""
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def _size(self) -> int:
        with suppress(ray.exceptions.RayError):  # the board is being started again
            self._last = self._wanted()
        return max(self._last, math.ceil(self._left / (self.numbers - self._made)))

    @contextmanager
    def filling(self, give_up: Callable[[], None]) -> Iterator[None]:
        """Fill the shelf while the block runs.

        Parameters
        ----------
        give_up : ends the stream, where blocks cannot be made; :meth:`check` says why.
        """
        ended = threading.Event()
        self._fill(AHEAD, ended)

        def go_on() -> None:
            try:
                while not ended.wait(LOOK_SECONDS):
                    before = self._asked
                    self._look()
                    # Where they go fast, so many that they last until the next look.
                    self._fill(self._asked + max(AHEAD, 2 * (self._asked - before)), ended)
            except BaseException as error:
                self._error = error
                while not ended.is_set():
                    give_up()
                    ended.wait(LOOK_SECONDS)

        thread = threading.Thread(target=go_on, name="blocks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def passed(self, number: int) -> None:
        """Let go of a block that has passed the stream."""
        with self._lock:
            self._gone.append(number)
            self._held.pop(number, None)

    def check(self) -> None:
        """Raise what went wrong while blocks were made."""
        if self._error is not None:
            raise self._error

    def _look(self) -> None:
        """Give the shelf what was made, and see what was asked for."""
        with self._lock:
            held, new, gone = dict(self._held), dict(self._new), list(self._gone)
        try:
            maker, asked = self._board.fill(self._key, new, gone, self._end)
            if self._maker not in ("", maker):  # the actor was started again, and knows nothing
                passed = [number for number in range(self._made) if number not in held]
                self._board.fill(self._key, held, passed, self._end)
        except ray.exceptions.RayError:
            return  # it is being started again
        self._maker, self._asked = maker, max(self._asked, asked)
        with self._lock:
            self._new = {n: kept for n, kept in self._new.items() if n not in new}
            del self._gone[: len(gone)]

    def _fill(self, until: int, ended: threading.Event) -> None:
        """Make blocks up to a number, each given to the shelf at once."""
        while self._made < until and self._end is None and not ended.is_set():
            self._make()
            self._look()

    def _make(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            self._end = self._made
            return
        kept = [ray.put(block)]
        with self._lock:
            self._held[self._made] = self._new[self._made] = kept
        self._made += 1
        self._left -= block.num_rows
        if not self._left:
            self._end = self._made


def numbered(source: Source) -> ray.data.Dataset:
    """A data set of the numbers of a source's blocks, each by itself."""
    rows = [{"number": number} for number in range(source.numbers)]
    return ray.data.from_items(rows, override_num_blocks=source.numbers)


def fetched(board: RemoteBoard, key: str, number: int) -> pa.Table | None:
    """The block of a number, waited for; None where there is none."""
    wait, longest = WAIT_SECONDS
    until = time.monotonic() + IDLE_SECONDS
    while True:
        waiting, found = board.take(key, number)
        if found:
            block: pa.Table = ray.get(found[0])
            return block
        if waiting == "pass" or (waiting == "idle" and time.monotonic() >= until):
            return None
        time.sleep(wait)
        wait = min(2 * wait, longest)


def wrapped(number: int, block: pa.Table | None) -> pa.Table:
    """A block as a table of one row."""
    content = pa.nulls(1, pa.large_binary())
    if block is not None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, block.schema) as stream:
            stream.write_table(block)
        held = sink.getvalue()
        ends = pa.py_buffer(np.array([0, held.size], np.int64))
        content = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, held])
    return pa.table({"number": pa.array([number], pa.int64()), "block": content})


def unwrapped(row: pa.Table) -> pa.Table | None:
    """The block of a table of one row, without a copy; None where it has none."""
    (content,) = row["block"]
    return pa.ipc.open_stream(content.as_buffer()).read_all() if content.is_valid else None
