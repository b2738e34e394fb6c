"""Where blocks lie between the driver, which cuts them, and the actors of a stream's first pool."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

Waiting = Literal["wait", "idle", "pass"]
"""How an actor waits: until a block is cut; a moment, as there is none of that number; or not."""


@dataclass
class Shelf:
    """Blocks of one stream, by their numbers, in the board's actor.

    Attributes
    ----------
    maker : tells this shelf from one of before the actor's process was started again.
    asked : numbers from 0 that were asked for.
    end : how many blocks there are; None while that is not known.
    is_closed : whether all of them have passed the stream.
    """

    maker: str = field(default_factory=lambda: uuid.uuid4().hex)
    asked: int = 0
    end: int | None = None
    is_closed: bool = False
    blocks: dict[int, list[Any]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)

    def take(self, number: int) -> tuple[Waiting, list[Any]]:
        """The block of a number, in a list, or what is to be done without one."""
        self.asked = max(self.asked, number + 1)
        if self.is_closed or number in self.gone:
            return "pass", []
        if self.end is not None and number >= self.end:
            return "idle", []
        return "wait", self.blocks.get(number, [])

    def close(self) -> None:
        """All blocks have passed the stream."""
        self.is_closed, self.blocks = True, {}

    def fill(
        self, blocks: dict[int, list[Any]], gone: list[int], end: int | None
    ) -> tuple[str, int]:
        """Put blocks there and take away those that have passed the stream; says its maker, and
        what was asked for."""
        self.gone.update(gone)
        self.end = end
        held = self.blocks | blocks
        self.blocks = {n: held[n] for n in held if n not in self.gone and not self.is_closed}
        return self.maker, self.asked
