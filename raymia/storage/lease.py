"""One run at a time writes one output folder.

A run keeps a file in the folder in which it writes the time, again and again. Whoever finds such a
file watches it: where the time moves on, the run lives, and the newcomer is refused; where it does
not, the run was killed, and the newcomer takes over. Clocks of different machines are not compared.
Evidence needs no lease: stores are keyed by content, and any number of runs may write to one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from raymia.storage.files import Folder
from raymia.storage.remote import StorageError
from raymia.util.errors import InputError, RaymiaError

LEASE_FILE = "lease.json"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
"""A run that has not written for so long is dead."""
SETTLE_SECONDS, SETTLE_REMOTE_SECONDS = 0.1, 1.0
"""After which two runs that take a folder over at one moment both see whose lease came last."""
STAMP = "%Y%m%dT%H%M%S"


@dataclass(frozen=True)
class Holder:
    """Who writes to a folder.

    Attributes
    ----------
    beat : a UTC time that its holder keeps renewing.
    boot, pids : the start of the machine and the namespace in which ``pid`` is counted; None where
        the system does not say.
    """

    run: str
    host: str
    pid: int
    beat: str
    boot: str | None = None
    pids: str | None = None

    @classmethod
    def here(cls, run: str) -> Holder:
        """This process."""
        return cls(run, socket.gethostname(), os.getpid(), now(), *_where_pids_are_counted())

    def is_dead_here(self) -> bool:
        """Whether it was a process that would be seen here, and is no more.

        Containers may share a host name, and do not see each other's processes. So the name alone
        is enough only where there is nothing better, and no containers either: beside Linux.
        """
        here = Holder.here(self.run)
        if (self.host, self.boot, self.pids) != (here.host, here.boot, here.pids):
            return False
        if sys.platform == "linux" and None in (here.boot, here.pids):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _where_pids_are_counted() -> tuple[str | None, str | None]:
    boot = pids = None
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        pids = str(Path("/proc/self/ns/pid").readlink())
    return boot, pids


def read_holder(folder: Folder) -> Holder | None:
    """Who holds a folder, or held it when it was killed; None where nobody does."""
    try:
        said = json.loads(folder.read(LEASE_FILE))
        # A later version may say more.
        return Holder(**{one.name: said[one.name] for one in fields(Holder) if one.name in said})
    except (FileNotFoundError, ValueError, TypeError):
        return None


class Lease:
    """A folder that one run writes to; see :func:`held`."""

    def __init__(self, folder: Folder, run: str) -> None:
        self.folder = folder
        self.run = run

    def beat(self) -> None:
        self.folder.write(LEASE_FILE, self._content())

    def create(self) -> bool:
        """Hold a folder that nobody holds; see :meth:`raymia.storage.files.Folder.create`."""
        return self.folder.create(LEASE_FILE, self._content())

    def _content(self) -> bytes:
        return json.dumps(asdict(Holder.here(self.run))).encode()

    def check(self) -> None:
        """Refuse to go on where another run has taken over.

        Raises
        ------
        RaymiaError
            Naming it.
        """
        holder = read_holder(self.folder)
        if holder is not None and holder.run != self.run:
            raise RaymiaError(
                f"output: {self.folder.url} was taken over by a run of process {holder.pid} on "
                f"{holder.host}; what this run asked is stored"
            )


@contextmanager
def held(url: str, run: str, stale_seconds: float = STALE_SECONDS) -> Iterator[Lease]:
    """Hold a folder while a block runs.

    Raises
    ------
    InputError
        If a run that lives holds it.
    """
    lease = Lease(Folder(url), run)
    if not lease.create():
        _take_over(lease, stale_seconds)
    elif not lease.folder.is_local:  # a store may pass over the condition on which it writes
        _settle(lease)
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError, StorageError):  # a moment's trouble; the next beat tells
                holder = read_holder(lease.folder)
                if holder is None or holder.run == run:
                    lease.beat()

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join(timeout=10)
        holder = read_holder(lease.folder)
        if holder is not None and holder.run == run:
            with suppress(OSError, StorageError):
                lease.folder.remove(LEASE_FILE)


def _take_over(lease: Lease, stale_seconds: float) -> None:
    """Hold a folder that somebody holds who is dead, or that had to be watched to say that nobody
    does."""
    dead = _watched(lease.folder, stale_seconds)
    if dead is None and lease.create():
        return
    _refuse(lease, read_holder(lease.folder), dead)
    lease.beat()
    _settle(lease)


def _settle(lease: Lease) -> None:
    """Refuse a folder in which the lease of another who took it at the same moment came last."""
    time.sleep(SETTLE_SECONDS if lease.folder.is_local else SETTLE_REMOTE_SECONDS)
    _refuse(lease, read_holder(lease.folder))


def _watched(folder: Folder, stale_seconds: float) -> Holder | None:
    """Who holds a folder and is dead; None where nobody holds it.

    Raises
    ------
    InputError
        If a run that lives holds it.
    """
    first = read_holder(folder)
    deadline = time.monotonic() + stale_seconds
    while first is not None and not first.is_dead_here():
        if time.monotonic() > deadline:
            break
        time.sleep(min(0.5, stale_seconds / 4))
        holder = read_holder(folder)
        if holder is None:
            return None
        if holder.beat != first.beat:
            raise _other(folder, holder)
    return first


def _refuse(lease: Lease, holder: Holder | None, dead: Holder | None = None) -> None:
    """Refuse a folder that another run holds, unless it is the one that is known to be dead."""
    if holder is not None and holder.run != lease.run and holder != dead:
        raise _other(lease.folder, holder)


def _other(folder: Folder, holder: Holder) -> InputError:
    return InputError(
        f"output: a run of process {holder.pid} on {holder.host} is writing to {folder.url}; wait "
        "for it, see `raymia status`, or give this audit another `output`. The store may be shared"
    )


def new_run_id(before: str = "") -> str:
    """An id that sorts by time: the UTC time a run began, and what tells it from others.

    Parameters
    ----------
    before : the id of the run before it in the same place. Where the clock has been set back since,
        the new one is given the second after.
    """
    began = datetime.now(UTC)
    with suppress(ValueError):
        last = datetime.strptime(before.partition("-")[0], STAMP).replace(tzinfo=UTC)
        began = max(began, last + timedelta(seconds=1))
    return f"{began:{STAMP}}-{uuid.uuid4().hex[:6]}"
