"""Progress and counts: whoever works reports to a board, and the run draws from it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

OnLines = Callable[[dict[str, "Line"]], None]
Look = Callable[[], dict[str, "Line"]]
POLL_SECONDS = 0.5
FIRST_LOG_SECONDS, LOG_SECONDS = 15.0, 60.0
"""Where the output is no terminal."""


@dataclass
class Line:
    """How far one stage is."""

    done: int = 0
    total: int = 0
    failed: int = 0
    seconds: float = 0.0
    questions: dict[str, int] = field(default_factory=dict)
    """By the question's name."""
    why_failed: str = ""
    """Why a stage that one target alone has a part in went wrong; empty where it did not."""


class Board(Protocol):
    """Counts of all stages, wherever they are kept."""

    def place(self, pool: str) -> None:
        """Note that a worker of a pool has its place."""

    def begin_loading(self, worker: str) -> int:
        """Note that a worker loads its models; says how often it began before and then answered
        nothing."""

    def answered(self, worker: str) -> None:
        """Note that a worker has answered about a block."""

    def expect(self, stage: str, total: int) -> None:
        """Note that a stage has so much more to do."""

    def set(self, stage: str, done: int, total: int) -> None:
        """Note how far a stage is."""

    def add(self, stage: str, question: str, done: int, failed: int, seconds: float) -> None:
        """Note that a stage has done so much more."""

    def fail(self, stage: str, why: str) -> None:
        """Note that a stage, which one target alone has a part in, went wrong."""

    def snapshot(self) -> dict[str, Line]:
        """The lines of all stages as they are now, by name."""


@dataclass
class Counts:
    """A board in this process."""

    lines: dict[str, Line] = field(default_factory=dict)
    pools: set[str] = field(default_factory=set)
    loading: dict[str, int] = field(default_factory=dict)

    def place(self, pool: str) -> None:
        self.pools.add(pool)

    def placed(self) -> set[str]:
        """The pools of which a worker has its place, or had it."""
        return self.pools

    def begin_loading(self, worker: str) -> int:
        unfinished = self.loading.get(worker, 0)
        self.loading[worker] = unfinished + 1
        return unfinished

    def answered(self, worker: str) -> None:
        self.loading[worker] = 0

    def expect(self, stage: str, total: int) -> None:
        self.lines.setdefault(stage, Line()).total += total

    def set(self, stage: str, done: int, total: int) -> None:
        line = self.lines.setdefault(stage, Line())
        line.done, line.total = done, total

    def add(self, stage: str, question: str, done: int, failed: int, seconds: float) -> None:
        line = self.lines.setdefault(stage, Line())
        line.done += done
        line.failed += failed
        line.seconds += seconds
        line.questions[question] = line.questions.get(question, 0) + done

    def fail(self, stage: str, why: str) -> None:
        self.lines.setdefault(stage, Line()).why_failed = why

    def snapshot(self) -> dict[str, Line]:
        # Each step is one of the interpreter's own, so that another thread may count meanwhile.
        return {
            name: replace(line, questions=dict(line.questions))
            for name, line in list(self.lines.items())
        }


def reporter(board: Board, stage: str) -> Callable[[int, int], None]:
    """A progress callback that writes to a board."""

    def report(done: int, total: int) -> None:
        board.set(stage, done, total)

    return report


@contextmanager
def drawn(look: Look, console: Console, on_lines: OnLines | None = None) -> Iterator[None]:
    """Draw what a board has counted while the block runs.

    Parameters
    ----------
    look : the board's lines; empty where they cannot be had now.
    on_lines : given what the stages have counted, again and again.
    """
    stop = threading.Event()
    draw = _draw_bars if console.is_terminal else _print_lines

    def look_and_tell() -> dict[str, Line]:
        lines = look()
        if on_lines is not None and lines:
            on_lines(lines)
        return lines

    thread = threading.Thread(target=draw, args=(look_and_tell, console, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _draw_bars(look: Look, console: Console, stop: threading.Event) -> None:
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
    )
    tasks: dict[str, TaskID] = {}
    with bars:
        ended = False
        while not ended:
            ended = stop.wait(POLL_SECONDS)
            for stage, line in look().items():
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=line.total, start=False)
                if line.done and not bars.tasks[tasks[stage]].started:
                    bars.start_task(tasks[stage])
                bars.update(tasks[stage], completed=line.done, total=line.total)


def _print_lines(look: Look, console: Console, stop: threading.Event) -> None:
    """Print a line for all stages together, the first one soon and then one a minute."""
    started: dict[str, float] = {}
    printed: dict[str, int] = {}
    failed: set[str] = set()
    due, ended = time.monotonic() + FIRST_LOG_SECONDS, False
    while not ended:
        ended = stop.wait(POLL_SECONDS)
        now = time.monotonic()
        lines = look()
        for stage, line in lines.items():
            if line.done:
                started.setdefault(stage, now)
            if line.why_failed and stage not in failed:
                failed.add(stage)
                why = f"{stage} failed: {line.why_failed}"
                console.print(why, highlight=False, markup=False, soft_wrap=True)
        if now < due and not ended:
            continue
        due = now + LOG_SECONDS
        news = {s: line for s, line in lines.items() if line.total and printed.get(s) != line.done}
        printed |= {stage: line.done for stage, line in news.items()}
        if news:
            elapsed = {stage: now - began for stage, began in started.items()}
            summary = _all_in_one(news, elapsed)
            console.print(summary, highlight=False, markup=False, soft_wrap=True)
        sys.stdout.flush()


def _all_in_one(lines: Mapping[str, Line], elapsed: Mapping[str, float]) -> str:
    """How far the stages are, and when the slowest of them will be done.

    >>> _all_in_one({"a": Line(50, 200), "b": Line(5, 5)}, {"a": 60.0, "b": 9.0})
    'a 50 of 200, b 5 of 5; about 3 min left'
    """
    counts = ", ".join(f"{stage} {line.done:,} of {line.total:,}" for stage, line in lines.items())
    left = [
        elapsed[stage] / line.done * (line.total - line.done)
        for stage, line in lines.items()
        if 0 < line.done < line.total and elapsed.get(stage, 0.0) > 1
    ]
    return f"{counts}; about {_in_words(max(left))} left" if left else counts


def _in_words(seconds: float) -> str:
    """A time to wait for, to the minute or to the hour's tenth.

    >>> _in_words(40), _in_words(180), _in_words(9_000)
    ('40 s', '3 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
