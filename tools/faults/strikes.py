"""What is broken while an audit runs, and when."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from forks import programs
from forks.programs import RAYMIA, Program

from faults.audits import Audit, Undisturbed, other_file
from faults.machines import Machines, actors, processes
from raymia.storage.moves import TEMPORARY_PREFIX

FROZEN_SECONDS = (5.0, 40.0)
"""Ray takes a machine for dead that does not answer for some 20."""
BEFORE = 0.2
"""Share of the strikes that come before any answer is stored."""
CLOCK_BACK = Path(__file__).parent / "clock_back"
WORKERS = "ray::"
"""A worker's process names what it runs."""
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Of a machine, which ends where one of these does."""


@dataclass
class Moment:
    """What there is to break while an audit runs.

    Attributes
    ----------
    undisturbed : what the audit comes to, and how fast.
    stored : share of all parts of evidence that were there when it was time to strike.
    wrong : what a strike found that should not be.
    repair : done before the audit is run again.
    """

    audit: Audit
    process: Program
    machines: Machines
    draws: random.Random
    undisturbed: Undisturbed
    stored: float | None = None
    wrong: list[str] = field(default_factory=list)
    repair: list[Callable[[], object]] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return not self.process.has_ended

    def kill(self) -> None:
        self.process.send(signal.SIGKILL)

    def wait(self) -> bool:
        """Until so many answers are stored, or a while after the start; whether it is at work."""
        share = self.draws.uniform(-BEFORE, 1)
        self.wait_for(lambda: len(self.audit.parts()) >= share * self.undisturbed.parts)
        self.pause(self.undisturbed.first if share < 0 else 0)
        self.stored = len(self.audit.parts()) / self.undisturbed.parts
        return self.is_running

    def pause(self, seconds: float) -> None:
        """For a part of a time, unless the audit ends."""
        deadline = time.monotonic() + self.draws.uniform(0, seconds)
        self.wait_for(lambda: time.monotonic() > deadline)

    def wait_for(self, condition: Callable[[], bool], look_every: float = 0.01) -> bool:
        """Whether something came true while the audit ran."""
        while self.is_running:
            if condition():
                return True
            time.sleep(look_every)
        return False


def actor(at: Moment) -> bool:
    """An actor of a pool is killed."""
    victim = _an_actor(at)
    if victim is not None:
        os.kill(victim, signal.SIGKILL)
    return victim is not None


def frozen_actor(at: Moment) -> bool:
    """An actor of a pool stands still for a while."""
    victim = _an_actor(at)
    if victim is not None:
        _freeze(at, victim)
    return victim is not None


def raylet(at: Moment) -> bool:
    """A machine is lost, and another comes."""
    was_running = at.wait()
    at.machines.lose_one(at.draws)
    return was_running


def frozen_raylet(at: Moment) -> bool:
    """A machine does not answer for a while, so that Ray may take it for dead."""
    was_running = at.wait()
    _freeze(at, at.draws.choice(at.machines.raylets()))
    at.repair.append(at.machines.mend)
    return was_running


def head(at: Moment) -> bool:
    """The cluster's head is lost, and with it the cluster; another comes."""
    was_running = at.wait()
    at.machines.lose_head()
    at.repair.append(at.machines.mend)
    return was_running


def driver(at: Moment) -> bool:
    """The driver is killed."""
    was_running = at.wait()
    at.kill()
    return was_running


def clock(at: Moment) -> bool:
    """The driver is killed, and takes it to be two hours earlier when it is run again."""
    was_running = at.wait()
    at.kill()
    at.audit.path = CLOCK_BACK
    return was_running


def mid_write(at: Moment) -> bool:
    """The driver and all actors are killed while a part of evidence is being written."""
    at.wait()
    return _kill_all_when(at, lambda: any(_temporary(at.audit.folder / "store" / "evidence")))


def scores(at: Moment) -> bool:
    """The driver is killed while scores, metrics or the report are being written."""

    def is_scoring() -> bool:
        run = at.audit.folder / "run"
        return any((at.audit.folder / "store" / "scores").glob("*/*")) or any(_temporary(run))

    if not at.wait_for(is_scoring):
        return False
    at.pause(0.5)
    was_running = at.is_running
    at.kill()
    return was_running


def training(at: Moment) -> bool:
    """The driver and all workers are killed while a reference is trained."""
    if not at.wait_for(lambda: any((at.audit.folder / "store" / "training").glob("*/*"))):
        return False
    at.pause(0.3 * at.undisturbed.seconds)
    return _kill_all_when(at, lambda: True)


def part_deleted(at: Moment) -> bool:
    """Somebody deletes a part of evidence while the audit runs."""
    part = _a_part(at)
    if part is None:
        return False
    part.unlink(missing_ok=True)
    return True


def part_cut(at: Moment) -> bool:
    """A part of evidence loses its second half while the audit runs; it has to be named, by the run
    or, where that has read it before, by who verifies the store."""
    part = _a_part(at)
    if part is None:
        return False
    with suppress(FileNotFoundError):
        os.truncate(part, part.stat().st_size // 2)

    def mend() -> None:
        if part.exists() and at.process.returncode == 0:  # it was cut after it had been read
            verified = programs.raymia("store", "verify", at.audit.folder / "store")
            if part.name not in verified.stdout:
                at.wrong.append(f"neither the run nor `store verify` named {part.name}")
        if at.process.returncode != 0 and part.name not in at.audit.log():
            at.wrong.append(f"the run failed without naming {part.name}")
        part.unlink(missing_ok=True)

    at.repair.append(mend)
    return True


def second_audit(at: Moment) -> bool:
    """Another audit file asks the same of the same store, beside this one."""
    file = other_file(at.audit, output="second")
    at.pause(0.5 * at.undisturbed.seconds)
    was_running = at.is_running
    other = at.audit.start(file)

    def compare() -> None:
        if (code := other.wait().returncode) != 0:
            at.wrong.append(f"the second audit ended with {code}")
        elif at.process.returncode == 0 and at.audit.scores("second") != at.audit.scores():
            at.wrong.append("the second audit has other scores")

    at.repair.append(compare)
    return was_running


def same_file(at: Moment) -> bool:
    """The same audit file is run beside itself: one of the two is refused."""
    at.pause(0.5 * at.undisturbed.seconds)
    was_running = at.is_running
    other = at.audit.start()

    def compare() -> None:
        codes = sorted(one.wait().returncode for one in (at.process, other))
        if codes not in ([0, 2], [0, 0]):  # the second may begin when the first has ended
            at.wrong.append(f"the two runs of one file ended with {codes}")

    at.repair.append(compare)
    return was_running


def upkeep(at: Moment) -> bool:
    """The store is compacted and cleaned while the audit runs, and who does it is killed."""
    was_running = at.is_running
    store = at.audit.folder / "store"
    commands = (("compact", store), ("gc", store, at.audit.file, "--delete"))
    while at.is_running:
        for command in commands:
            cleaner = Program(RAYMIA, "store", *command)
            with suppress(TimeoutError):
                cleaner.wait(at.draws.uniform(0.2, 3))  # and then it is killed
    return was_running


STRIKES: dict[str, Callable[[Moment], bool]] = {
    strike.__name__: strike
    for strike in (
        actor, frozen_actor, raylet, frozen_raylet, head, driver, clock, mid_write, scores,
        training, part_deleted, part_cut, second_audit, same_file, upkeep,
    )
}  # fmt: skip


def _an_actor(at: Moment) -> int | None:
    """The process of one, after a while; None where the audit has ended by then, or has none."""
    at.wait()
    at.wait_for(lambda: bool(actors()))
    victims = actors()
    return at.draws.choice(victims) if victims and at.is_running else None


def _freeze(at: Moment, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(at.draws.uniform(*FROZEN_SECONDS))
        os.kill(pid, signal.SIGCONT)


def _kill_all_when(at: Moment, condition: Callable[[], bool]) -> bool:
    if not at.wait_for(condition, look_every=0.001):
        return False
    at.kill()
    for victim in processes(WORKERS, besides=AGENTS):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return True


def _temporary(folder: Path) -> Iterator[str]:
    for _, _, names in os.walk(folder):
        yield from (name for name in names if name.startswith(TEMPORARY_PREFIX))


def _a_part(at: Moment) -> Path | None:
    """One of the files of evidence, some while after the first; None where the audit has ended."""
    if not at.wait_for(lambda: bool(at.audit.parts())):
        return None
    at.pause(0.3 * at.undisturbed.seconds)
    found = at.audit.parts()
    return at.draws.choice(found) if found and at.is_running else None
