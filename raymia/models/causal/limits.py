"""Limits on what a chat template takes: the time of one rendering, and the size of what it writes.

A rendering that does not end cannot be stopped, so it runs in a thread that may be left behind; if
it ends after all, so does the thread. A thread serves many records, since to start one costs more
than to render.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn, TypeVar

from raymia.util.errors import RaymiaError, first_line
from raymia.util.reasons import CAME

SECONDS_TO_RENDER = 10.0
LONGEST_RENDERING = 20_000_000
"""Characters. Both are far beyond any conversation: they stop a template that never ends."""

Subject = TypeVar("Subject")
Found = TypeVar("Found")


class RenderingError(RaymiaError):
    """A record that its template cannot write, or writes so that no mask can be told."""


class _Clock:
    """How much time the rendering has left that a thread is at."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_late = False
        """Whether nobody waits for the thread any more."""
        self._ends: float | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        self._ends = time.monotonic() + self.seconds
        try:
            yield
        finally:
            self._ends = None

    def left(self) -> float:
        ends = self._ends
        return self.seconds if ends is None else max(0.0, ends - time.monotonic())


_CLOCK: ContextVar[_Clock | None] = ContextVar("clock", default=None)
"""Of the thread that renders, where another one waits for it."""


def each_within_limits(
    work: Callable[[Subject], Found],
    subjects: Sequence[Subject],
    instead: Callable[[RenderingError], Found],
    seconds: float | None = None,
) -> list[Found]:
    """Do work that renders on one subject after another.

    Parameters
    ----------
    instead : what is found where a rendering takes longer than `seconds`, which are
        :data:`SECONDS_TO_RENDER` by default; the subjects after that one are worked on as the
        others.
    """
    seconds = SECONDS_TO_RENDER if seconds is None else seconds
    found: list[Found] = []
    while len(found) < len(subjects):
        done, has_ended = _in_a_thread(work, subjects[len(found) :], seconds)
        found += done
        if not has_ended:
            late = f"the template did not end within {seconds:g} seconds"
            found.append(instead(RenderingError(late)))
    return found


def within_limits(render: Callable[[], Found], seconds: float | None = None) -> Found:
    """What a template writes.

    Raises
    ------
    RenderingError
        If it raises, takes too long, or writes too much.
    """
    clock = _CLOCK.get()
    if clock is None:
        return each_within_limits(lambda _: within_limits(render), [None], _raised, seconds)[0]
    try:
        with clock.running():
            written = render()
    except BaseException as error:  # of any kind, by what the template or the tokenizer does
        raise RenderingError(f"the template cannot write it{CAME}{first_line(error)}") from error
    size = len(written) if isinstance(written, str) else len(written["input_ids"])  # type: ignore[index]
    if size > LONGEST_RENDERING:
        raise RenderingError(f"the template wrote {size:,} characters or tokens")
    return written


def _in_a_thread(
    work: Callable[[Subject], Found], subjects: Sequence[Subject], seconds: float
) -> tuple[list[Found], bool]:
    """What was found until the end, or until a rendering took too long, and whether it ended."""
    clock, found, raised = _Clock(seconds), list[Found](), list[BaseException]()

    def run() -> None:
        _CLOCK.set(clock)
        try:
            for subject in subjects:
                if clock.is_late:
                    return
                found.append(work(subject))
        except BaseException as error:  # such as a panic of the tokenizer's
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        done = len(found)  # before the clock is read: the late rendering is of the subject after it
        if not clock.left():
            clock.is_late = True
            return found[:done], False
        thread.join(clock.left())
    if raised:
        raise raised[0]
    return found, True


def _raised(error: RenderingError) -> NoReturn:
    raise error
