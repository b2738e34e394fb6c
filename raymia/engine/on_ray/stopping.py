"""Threads of the driver that can be told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

STOP_SECONDS = 20.0
"""How long threads that were told to end may take."""
Found = TypeVar("Found")
_stop: ContextVar[threading.Event] = ContextVar("stop")


class StoppedError(Exception):
    """The thread was told to end."""


@dataclass
class Threads:
    """Threads of one piece of work, all of which are told to end when the block does.

    They keep no process alive: a driver that ends does not wait for them.
    """

    _event: threading.Event = field(default_factory=threading.Event)
    _running: list[Future[Any]] = field(default_factory=list)

    def start(self, function: Callable[..., Found], *arguments: Any) -> Future[Found]:
        """Call a function in a thread of its own."""
        future: Future[Found] = Future()

        def run() -> None:
            _stop.set(self._event)
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._running.append(future)
        threading.Thread(target=run, name=function.__name__, daemon=True).start()
        return future

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._event.set()
        wait(self._running, timeout=STOP_SECONDS)


def first_done(futures: Collection[Future[Any]], seconds: float) -> set[Future[Any]]:
    """Wait until one has ended, or the time is up."""
    return wait(futures, timeout=seconds, return_when=FIRST_COMPLETED).done


def stop_requested() -> threading.Event:
    """Set where this thread is told to end; never, for one that nobody tells."""
    return _stop.get(threading.Event())


def pause(seconds: float) -> None:
    """Sleep.

    Raises
    ------
    StoppedError
        Where this thread is told to end, at once.
    """
    if stop_requested().wait(seconds):
        raise StoppedError
