"""Lists that are made when they are first read, of which most may never be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar, overload

One = TypeVar("One", covariant=True)


class Lazily(Sequence[One]):
    """A list whose length is known and that is made when something of it is first read.

    Examples
    --------
    >>> texts = Lazily(2, lambda: ["one", "two"])
    >>> len(texts), texts[1], list(texts)
    (2, 'two', ['one', 'two'])
    """

    def __init__(self, count: int, make: Callable[[], list[One]]) -> None:
        self._count, self._make = count, make

    @cached_property
    def _made(self) -> list[One]:
        return self._make()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[One]:
        return iter(self._made)

    @overload
    def __getitem__(self, place: int) -> One: ...

    @overload
    def __getitem__(self, place: slice) -> list[One]: ...

    def __getitem__(self, place: int | slice) -> Any:
        return self._made[place]
