"""Progress and counts: workers report to one actor, the driver draws from it."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
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
LOG_SECONDS = 15.0


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
    """Of a stage that one target alone has a part in, and that went wrong."""


@dataclass
class Board:
    """Counts of all stages; runs as an actor that uses no CPU."""

    lines: dict[str, Line] = field(default_factory=dict)
    pools: set[str] = field(default_factory=set)
    loading: dict[str, int] = field(default_factory=dict)

    def place(self, pool: str) -> None:
        """Note that an actor of a pool has its place."""
        self.pools.add(pool)

    def placed(self) -> set[str]:
        """The pools of which an actor has its place, or had it."""
        return self.pools

    def begin_loading(self, actor: str) -> int:
        """Note that an actor loads its models; says how often it began before and did not end."""
        unfinished = self.loading.get(actor, 0)
        self.loading[actor] = unfinished + 1
        return unfinished

    def end_loading(self, actor: str) -> None:
        self.loading[actor] = 0

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
        return self.lines


@contextmanager
def started(console: Console, on_lines: OnLines | None = None) -> Iterator[Any]:
    """Start the board as an actor, draw it while the block runs, and end it.

    Parameters
    ----------
    on_lines : given what the stages have counted, again and again.
    """
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 3}
    board = ray.remote(**options, name=f"raymia progress {uuid.uuid4().hex[:6]}")(Board).remote()
    stop = threading.Event()
    draw = _draw_bars if console.is_terminal else _print_lines

    def look() -> dict[str, Line]:
        lines = _snapshot(board)
        if on_lines is not None and lines:
            on_lines(lines)
        return lines

    thread = threading.Thread(target=draw, args=(look, console, stop), daemon=True)
    thread.start()
    try:
        yield board
    finally:
        stop.set()
        thread.join(timeout=10)
        ray.kill(board)


def _snapshot(board: Any) -> dict[str, Line]:
    try:
        lines: dict[str, Line] = ray.get(board.snapshot.remote(), timeout=10)
    except ray.exceptions.RayError:
        return {}
    return lines


def _draw_bars(look: Look, console: Console, stop: threading.Event) -> None:
    bars = Progress(
        TextColumn("{task.description}"),
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
    started: dict[str, float] = {}
    printed: dict[str, int] = {}
    failed: set[str] = set()
    last, ended = time.monotonic(), False
    while not ended:
        ended = stop.wait(POLL_SECONDS)
        now = time.monotonic()
        lines = look()
        for stage, line in lines.items():
            if line.done:
                started.setdefault(stage, now)
        if now - last < LOG_SECONDS and not ended:
            continue
        last = now
        for stage, line in lines.items():
            if line.why_failed and stage not in failed:
                failed.add(stage)
                console.print(f"{stage} failed: {line.why_failed}", highlight=False, markup=False)
            if printed.get(stage) == line.done or not line.total:
                continue
            printed[stage] = line.done
            left = ""
            elapsed = now - started.get(stage, now)
            if 0 < line.done < line.total and elapsed > 1:
                left = f", about {elapsed / line.done * (line.total - line.done):.0f} s left"
            console.print(f"{stage}: {line.done} of {line.total}{left}", highlight=False)
        sys.stdout.flush()
