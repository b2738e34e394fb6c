"""Files that many checkpoints share, read once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Found = TypeVar("Found")


class Once:
    """Calls functions of files, and gives what they returned to later calls that are equal.

    One look at an audit's models has one of these, and gives it up at its end: a file may change
    after. What a call raises is not kept.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], Any] = {}

    def __call__(
        self, read: Callable[..., Found], *arguments: Hashable, where: str | None = None
    ) -> Found:
        """What the function returns.

        Parameters
        ----------
        where : given to the function for what it says of errors; equal calls may differ in it.
        """
        call = (read, *arguments)
        if call not in self._found:
            named = {} if where is None else {"where": where}
            self._found[call] = read(*arguments, **named)
        found: Found = self._found[call]
        return found

    def knows(self, read: Callable[..., Any], *arguments: Hashable) -> bool:
        """Whether the call has been made."""
        return (read, *arguments) in self._found
