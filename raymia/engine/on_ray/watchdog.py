"""No process of a Ray that was started here outlives a driver that is killed.

Ray's head follows its driver at once, and workers soon; its agents, of 100 MB and more, stay for
half a minute. This module, run as a small process of its own, waits for the driver's end and kills
what is left. It needs Linux's ``/proc``; elsewhere Ray is left to itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "RAYMIA_RAY"
"""Environment variable of all processes of a Ray that was started here, but not of their driver."""
PROCESSES = Path("/proc")
AGAIN_SECONDS = 0.1
MOST_SECONDS = 60.0


@contextmanager
def followed() -> Iterator[dict[str, str]]:
    """Kill, as soon as this process is killed, what was started with these environment variables.

    Where the block ends, however it ends, nothing is killed: that is the business of the block.
    """
    if not (PROCESSES / "self" / "environ").exists():
        yield {}
        return
    mark = uuid.uuid4().hex
    follower = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, f"{MARK}={mark}"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the driver's
    )  # fmt: skip
    try:
        yield {MARK: mark}
    finally:
        follower.kill()
        follower.communicate()


def follow(variable: str) -> None:
    """Wait until standard input breaks, which it does with the driver; then kill what has the
    variable, and what that starts meanwhile."""
    sys.stdin.buffer.read()
    deadline = time.monotonic() + MOST_SECONDS
    while (left := marked(variable)) and time.monotonic() < deadline:
        for process in left:
            with suppress(OSError):  # it has ended in the meantime
                os.kill(process, signal.SIGKILL)
        time.sleep(AGAIN_SECONDS)


def marked(variable: str) -> list[int]:
    """The processes whose environment has a variable."""
    found = []
    for folder in PROCESSES.iterdir():
        with suppress(OSError):  # it is another user's, or has ended in the meantime
            if folder.name.isdigit() and variable.encode() in _environment(folder):
                found.append(int(folder.name))
    return found


def _environment(folder: Path) -> list[bytes]:
    return (folder / "environ").read_bytes().split(b"\0")


if __name__ == "__main__":
    follow(sys.argv[1])
