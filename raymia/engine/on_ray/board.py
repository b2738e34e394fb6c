"""The board as an actor that uses no CPU, which workers on all machines report to."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console

from raymia.engine.board import Counts, Line, OnLines, drawn
from raymia.engine.on_ray.cluster import beside_the_driver
from raymia.engine.on_ray.shelf import Shelf, Waiting

LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class RemoteBoard:
    """A :class:`raymia.engine.board.Board` that reports to an actor; may be sent to workers.

    What was added or failed is counted when the call returns: the process that reports it may be
    killed right after.
    """

    actor: Any

    def place(self, pool: str) -> None:
        self.actor.place.remote(pool)

    def placed(self) -> set[str]:
        """See :meth:`raymia.engine.board.Counts.placed`."""
        return set(ray.get(self.actor.placed.remote()))

    def begin_loading(self, worker: str) -> int:
        return int(ray.get(self.actor.begin_loading.remote(worker)))

    def answered(self, worker: str) -> None:
        self.actor.answered.remote(worker)

    def expect(self, stage: str, total: int) -> None:
        self.actor.expect.remote(stage, total)

    def set(self, stage: str, done: int, total: int) -> None:
        self.actor.set.remote(stage, done, total)

    def add(self, stage: str, question: str, done: int, failed: int, seconds: float) -> None:
        ray.get(self.actor.add.remote(stage, question, done, failed, seconds))

    def fail(self, stage: str, why: str) -> None:
        ray.get(self.actor.fail.remote(stage, why))

    def fill(
        self, stream: str, blocks: dict[int, list[Any]], gone: list[int], end: int | None
    ) -> tuple[str, int]:
        """See :meth:`raymia.engine.on_ray.shelf.Shelf.fill`."""
        maker, asked = ray.get(self.actor.fill.remote(stream, blocks, gone, end))
        return str(maker), int(asked)

    def take(self, stream: str, number: int) -> tuple[Waiting, list[Any]]:
        """See :meth:`raymia.engine.on_ray.shelf.Shelf.take`."""
        found: tuple[Waiting, list[Any]] = ray.get(self.actor.take.remote(stream, number))
        return found

    def close(self, stream: str) -> None:
        """Let actors of a stream that idle go on."""
        ray.get(self.actor.close.remote(stream))

    def snapshot(self) -> dict[str, Line]:
        lines: dict[str, Line] = ray.get(self.actor.snapshot.remote())
        return lines

    def look(self) -> dict[str, Line]:
        """The lines, or none where the actor is being started again."""
        try:
            lines: dict[str, Line] = ray.get(self.actor.snapshot.remote(), timeout=LOOK_SECONDS)
        except ray.exceptions.RayError:
            return {}
        return lines


class _Actor(Counts):
    """A board, and a shelf for each stream."""

    def __init__(self) -> None:
        super().__init__()
        self._shelves: defaultdict[str, Shelf] = defaultdict(Shelf)

    def fill(
        self, stream: str, blocks: dict[int, list[Any]], gone: list[int], end: int | None
    ) -> tuple[str, int]:
        return self._shelves[stream].fill(blocks, gone, end)

    def take(self, stream: str, number: int) -> tuple[Waiting, list[Any]]:
        return self._shelves[stream].take(number)

    def close(self, stream: str) -> None:
        self._shelves[stream].close()


@contextmanager
def started(console: Console, on_lines: OnLines | None = None) -> Iterator[RemoteBoard]:
    """Start the board as an actor, draw it while the block runs, and end it.

    Parameters
    ----------
    on_lines : see :func:`raymia.engine.board.drawn`.
    """
    options = {**beside_the_driver(), "max_restarts": -1, "max_task_retries": -1}
    name = f"raymia progress {uuid.uuid4().hex[:6]}"
    board = RemoteBoard(ray.remote(**options, name=name)(_Actor).remote())
    try:
        with drawn(board.look, console, on_lines):
            yield board
    finally:
        ray.kill(board.actor)
