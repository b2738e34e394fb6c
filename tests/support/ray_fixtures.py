"""Starting and ending Ray for tests: one local Ray for all modules, and nothing left behind."""

from __future__ import annotations

import atexit
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from forks.workers import workers_forked

MARK = "RAYMIA_TEST_MARK"
"""Environment variable that tells the processes of one test, grandchildren included."""
LOCAL_CPUS = 4  # more than the machine may have: pools of several actors must fit


def private_folder() -> Path:
    """A folder for Ray's files, short (sockets allow 107 bytes), removed when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="rm", dir="/tmp"))
    atexit.register(_remove, folder)
    return folder


def _remove(folder: Path) -> None:
    ray.shutdown()  # this runs before Ray's own exit handler, and a Ray that lives writes again
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.25)


def start_local_ray() -> None:
    """Start the Ray that all in-process tests share."""
    with workers_forked():
        ray.init(
            address="local",
            num_cpus=LOCAL_CPUS,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=200 * 2**20,
            _temp_dir=str(private_folder()),
        )


def actors_seen() -> list[dict[str, Any]]:
    """All actors of the cluster, dead ones too, from the control store; needs no dashboard."""
    from ray._private.state import actors

    return list(actors().values())


def ports_of(worker: str) -> list[int]:
    """Ports that one process of tests may hand out, in no order; no other's are among them.

    They lie between those of Ray's workers (10002 to 19999) and those that the kernel gives
    to whoever asks for any (32768 and above on Linux): seconds pass until a server binds the
    port it was told, and in between another process could be given one of those.
    """
    ports = range(20_000 + int(worker.removeprefix("gw")) % 16, 32_000, 16)
    return random.SystemRandom().sample(ports, len(ports))


_PORTS = iter(ports_of(os.environ.get("PYTEST_XDIST_WORKER", "gw0")))


def free_port() -> int:
    """A port that nothing listens on, and that nothing else will be given."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free between 20000 and 32000")


def child_environment(**more: str) -> tuple[dict[str, str], str]:
    """Environment for a process of its own Ray, and the mark that all its descendants carry."""
    mark = uuid.uuid4().hex
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    defaults = {
        "PATH": path, "RAY_TMPDIR": str(private_folder()), "HF_HUB_OFFLINE": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # jobs and actors give way to no test beside them
    }  # fmt: skip
    return {**kept, **defaults, **more, MARK: mark}, mark


def marked_processes(mark: str) -> list[int]:
    """Living processes that carry a mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def workers_of(mark: str) -> list[str]:
    """Command lines of marked processes, without Ray's agents, which live a minute longer."""
    lines = []
    for pid in marked_processes(mark):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0").decode()
            if line and "DashboardAgent" not in line and "RuntimeEnvAgent" not in line:
                lines.append(line.replace("\0", " "))
    return lines


def end_marked(mark: str) -> None:
    """Kill every process that carries a mark, and wait until none is left."""
    deadline = time.monotonic() + 30
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)
    assert not left, f"processes outlive the test: {left}"


@contextmanager
def ended(mark: str) -> Iterator[None]:
    """Kill what carries a mark at the end of the block, whatever happens in it."""
    try:
        yield
    finally:
        end_marked(mark)


def start(command: list[str], environment: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, its output in a file."""
    with output.open("wb") as file:
        return subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def wait_until(condition: Any, seconds: float, what: str) -> Any:
    """Poll until a condition is true and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)
