"""Where the steps of a reduction run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

Found = TypeVar("Found")


class Workers(Protocol):
    """Runs steps, here or elsewhere."""

    def map(
        self,
        what: str,
        step: Callable[..., Found],
        shared: tuple[Any, ...],
        jobs: Sequence[tuple[Any, ...]],
    ) -> list[Found]:
        """The results of ``step(shared, *job)``, in the order of the jobs.

        Parameters
        ----------
        what : is done, in a word or two, for who waits.
        """


class Here:
    """Runs steps in this process, one after another."""

    def map(
        self,
        what: str,
        step: Callable[..., Found],
        shared: tuple[Any, ...],
        jobs: Sequence[tuple[Any, ...]],
    ) -> list[Found]:
        del what
        return [step(shared, *job) for job in jobs]
