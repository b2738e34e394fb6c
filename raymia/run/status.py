"""What a run is doing, told in events that outlive it.

A run writes its events into the folder ``events`` of its output, one JSON object per line::

    {"time": "2026-05-01T12:00:00.000+00:00", "run": "20260501T120000-1f3a9c", "n": 7,
     "event": "target", "target": "epoch-3", "state": "scoring", "done": 128, "total": 960}

Each part of the log is a file of its own, ``RUN-N.jsonl``, seen whole or not at all, so a kill
loses none and object stores serve as well as disks. Now and then, and when the run ends, parts are
merged into ``RUN.jsonl``; an event that is in both is read once. Whoever reads needs nothing of the
run.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from raymia.plan.stages import TargetPlan
from raymia.results.events import FOLDER, line_of, read_events
from raymia.storage.files import Folder
from raymia.storage.lease import STALE_SECONDS, Holder, now, read_holder
from raymia.storage.remote import StorageError
from raymia.util.durations import duration
from raymia.util.errors import InputError

State = Literal["waiting", "preparing", "scoring", "done", "failed"]
PROGRESS_SECONDS = 10.0
"""Between two events that differ in counts alone."""
STOPPED = "stopped"
"""Why a run ended that was stopped by Ctrl-C or SIGTERM."""
MAX_PARTS = 64


class LineLike(Protocol):
    """How far a stage is; see :class:`raymia.engine.board.Line`."""

    done: int
    total: int
    why_failed: str


Event = Mapping[str, Any]


class EventLog:
    """The events of one run; may be written from any thread.

    Parameters
    ----------
    redactor : an event as it may be written.
    """

    def __init__(self, output: str, run: str, redactor: Callable[[Event], Event] = dict) -> None:
        self.run = run
        self._redactor = redactor
        self._folder = Folder(output)
        self._lines: list[str] = []
        self._parts: list[str] = []
        self._lock = threading.Lock()

    def write(self, *events: Event) -> None:
        """Write some events, as one part."""
        with self._lock:
            first = len(self._lines)
            self._lines += [
                line_of({"time": now(), "run": self.run, "n": first + n, **self._redactor(event)})
                for n, event in enumerate(events)
            ]
            name = f"{FOLDER}/{self.run}-{first:06d}.jsonl"
            self._folder.write(name, "".join(self._lines[first:]).encode())
            self._parts.append(name)
            if len(self._parts) > MAX_PARTS:
                self._merge()

    def close(self) -> None:
        """Merge what was written into one file."""
        with self._lock:
            self._merge()

    def _merge(self) -> None:
        content = "".join(self._lines).encode()
        self._folder.write(f"{FOLDER}/{self.run}.jsonl", content)
        for part in self._parts:
            with suppress(FileNotFoundError):
                self._folder.remove(part)
        self._parts = []


@contextmanager
def recorded(
    output: str,
    run: str,
    audit: str,
    targets: Sequence[str],
    redactor: Callable[[Event], Event] = dict,
) -> Iterator[EventLog]:
    """Log that a run begins, and how it ends, whichever way that is but by a kill."""
    log = EventLog(output, run, redactor)
    log.write(
        {"event": "run_started", "audit": audit, "targets": list(targets), "pid": os.getpid(),
         "host": socket.gethostname()}
    )  # fmt: skip
    try:
        yield log
    except BaseException as error:
        with suppress(OSError, StorageError):  # where the disk is full, what failed first is told
            log.write({"event": "run_ended", "why": _why(error)})
            log.close()
        raise
    log.write({"event": "run_ended"})
    log.close()


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):  # by Ctrl-C, and by SIGTERM
        return STOPPED
    return str(error) or type(error).__name__


# ------------------------------------------------------------------ from counts to events


@dataclass(frozen=True)
class Progress:
    """Where one checkpoint is.

    Attributes
    ----------
    done, total : answers that are there, and answers in all, of what is asked for this checkpoint
        alone; of a preparation, its own steps.
    why : what it failed for, or what is being prepared.
    """

    state: State = "waiting"
    done: int = 0
    total: int = 0
    why: str = ""

    def as_event(self, target: str) -> dict[str, Any]:
        event = {"event": "target", "target": target, "state": self.state, "done": self.done,
                 "total": self.total}  # fmt: skip
        return {**event, "why": self.why} if self.why else event

    def __str__(self) -> str:
        if self.state == "scoring":
            return f"scoring {self.done:,} of {self.total:,}"
        if self.state == "preparing":
            return f"preparing: {self.why}, {self.done:,} of {self.total:,}"
        return f"failed: {self.why}" if self.state == "failed" else self.state


class Watch:
    """Turns what the stages count into events, one where a checkpoint's state changes, and one now
    and then where only its counts do."""

    def __init__(self, log: EventLog, plans: Sequence[TargetPlan]) -> None:
        self._log = log
        self._plans = plans
        self._written: dict[str, Progress] = {}
        self._last = time.monotonic()
        self._same_as = _same_as_earlier(plans)
        self.look({})

    def look(self, lines: Mapping[str, LineLike]) -> None:
        """Tell of what has changed."""
        found = {plan.name: progress_of(plan, lines) for plan in self._plans}
        found |= {name: found[other] for name, other in self._same_as.items()}
        due = time.monotonic() - self._last > PROGRESS_SECONDS
        news = {
            name: progress
            for name, progress in found.items()
            if name not in self._written
            or (self._written[name].state, self._written[name].why)
            != (progress.state, progress.why)
            or (due and self._written[name] != progress)
        }
        self._tell(news)

    def end(self, failed: Mapping[str, str], missing: Mapping[str, int]) -> None:
        """Tell how each checkpoint ended.

        Parameters
        ----------
        failed : why, by target.
        missing : answers that are still missing, by target.
        """
        ended = {}
        for plan in self._plans:
            total = sum(stage.to_ask + stage.not_asked for stage in _own(plan))
            lacks = missing.get(plan.name, 0)
            state: State = "done" if not lacks else "waiting"
            progress = Progress(state, total - lacks, total)
            if plan.name in failed:
                progress = replace(progress, state="failed", why=failed[plan.name])
            ended[plan.name] = progress
        self._tell({n: p for n, p in ended.items() if self._written.get(n) != p})

    def _tell(self, news: Mapping[str, Progress]) -> None:
        if not news:
            return
        with suppress(OSError, StorageError):  # what cannot be told now is told next time
            self._log.write(*(progress.as_event(name) for name, progress in news.items()))
            self._written |= news
            self._last = time.monotonic()


def _same_as_earlier(plans: Sequence[TargetPlan]) -> dict[str, str]:
    """Targets whose questions are put to an earlier target of the same content."""
    asked: dict[str, str] = {}
    same: dict[str, str] = {}
    for plan in plans:
        for planned in plan.target.questions:
            if planned.key.hash in asked:
                same[plan.name] = asked[planned.key.hash]
            elif planned.missing:
                asked[planned.key.hash] = plan.name
    return same


def _own(plan: TargetPlan) -> list[Any]:
    return [stage for stage in plan.stages if stage.only_for is not None]


def progress_of(plan: TargetPlan, lines: Mapping[str, LineLike]) -> Progress:
    """Where a checkpoint is, by what the stages of its audit have counted.

    Parameters
    ----------
    plan : before the run.
    lines : by stage name, and by the names of the steps in which a reference is made.
    """
    stages = _own(plan)
    total = sum(stage.to_ask + stage.not_asked for stage in stages)
    asked = sum(min(lines[s.name].done, s.to_ask) for s in stages if s.name in lines)
    done = sum(stage.not_asked for stage in stages) + asked
    why = next((lines[s.name].why_failed for s in stages
                if s.name in lines and lines[s.name].why_failed), "")  # fmt: skip
    if why:
        return Progress("failed", done, total, why)
    if done == total and all(preparation.ready for preparation in plan.preparations):
        return Progress("done", done, total)
    if any(stage.name in lines for stage in stages):
        return Progress("done" if done == total else "scoring", done, total)
    made = [f": {p.stage_name(plan.name)}" for p in plan.preparations]
    steps = {n: line for n, line in lines.items() if any(n.endswith(end) for end in made)}
    for name, line in steps.items():
        if line.done < line.total:
            return Progress("preparing", line.done, line.total, name)
    return Progress("waiting", done, total)


# -------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class RunStatus:
    """What is known of the last run that wrote to a folder.

    Attributes
    ----------
    targets : where each checkpoint is, in the order of the audit file.
    ended : whether the run came to an end of its own; ``why`` says which, where it was an error.
    last_sign : when it last wrote an event, or renewed its lease.
    is_dead : whether it has not ended, and cannot be alive.
    """

    run: str
    audit: str
    targets: dict[str, Progress]
    ended: bool
    why: str
    last_sign: datetime
    is_dead: bool
    events: list[dict[str, Any]] = field(default_factory=list)

    def summary(self) -> str:
        """One line on the run as a whole."""
        seconds = max(0.0, (datetime.now(UTC) - self.last_sign).total_seconds())
        ago = f"{seconds:.0f} s ago" if seconds < 60 else f"{duration(seconds)} ago"
        if self.ended and self.why == STOPPED:
            return f"stopped {ago}; run the audit again to go on"
        if self.ended:
            return f"ended {ago}" + (f" with an error: {self.why}" if self.why else "")
        if self.is_dead:
            return f"killed: its last sign of life was {ago}; run the audit again to go on"
        return f"running, last sign of life {ago}"


def last_run(output: str) -> str:
    """The id of the last run that wrote to an output folder; empty where there is none."""
    names = Folder(output).names(FOLDER, ".jsonl")
    return max(("-".join(name.removesuffix(".jsonl").split("-")[:2]) for name in names), default="")


def read_status(output: str) -> RunStatus:
    """What the last run that wrote to an output folder is doing, or came to.

    Raises
    ------
    InputError
        If no run has written to the folder.
    """
    folder = Folder(output)
    runs = read_events(folder)
    if not runs:
        raise InputError(f"{output}: no run has written events here; give the output of an audit")
    run, events = list(runs.items())[-1]
    first, last = events[0], events[-1]
    targets = {name: Progress() for name in first.get("targets", [])}
    for event in events:
        if event["event"] == "target":
            known = {key: event[key] for key in ("state", "done", "total", "why") if key in event}
            targets[event["target"]] = Progress(**known)
    ended = last["event"] == "run_ended"
    sign = datetime.fromisoformat(last["time"])
    holder = read_holder(folder)
    if holder is not None and holder.run == run:
        sign = max(sign, datetime.fromisoformat(holder.beat))
    return RunStatus(
        run=run,
        audit=str(first.get("audit", "")),
        targets=targets,
        ended=ended,
        why=str(last.get("why", "")) if ended else "",
        last_sign=sign,
        is_dead=not ended and _is_dead(holder, run, sign),
        events=events,
    )


def _is_dead(holder: Holder | None, run: str, sign: datetime) -> bool:
    if holder is not None and holder.run == run and holder.is_dead_here():
        return True
    return (datetime.now(UTC) - sign).total_seconds() > STALE_SECONDS
