"""What a killed driver leaves behind is killed, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from ray_fixtures import wait_until

from raymia.engine.on_ray.watchdog import MARK, followed, marked

DRIVER = """
import os, subprocess, sys, time
from raymia.engine.on_ray.watchdog import followed
sleep = [sys.executable, "-c", "import time; time.sleep(120)"]
with followed() as mark:
    null = subprocess.DEVNULL
    options = {"stdout": null, "stderr": null, "start_new_session": True}
    left = subprocess.Popen(sleep, env=os.environ | mark, **options)
    other = subprocess.Popen(sleep, **options)
    print(left.pid, other.pid, *mark.values(), flush=True)
    {ends}
"""


def is_alive(process: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


@pytest.mark.parametrize(
    ("ends", "is_killed"),
    [
        ("os.kill(os.getpid(), 9)", True),
        ("os._exit(1)", True),
        ("os.killpg(os.getpgid(0), 9)", True),
        ("raise SystemExit", False),
    ],
    ids=["SIGKILL", "without a word", "with its group", "by itself"],
)
def test_marked_processes_follow_a_driver_that_is_killed(ends: str, is_killed: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER.replace("{ends}", ends)],
        capture_output=True, text=True, timeout=60, check=False, start_new_session=True,
    )  # fmt: skip
    left, other, mark = done.stdout.split()
    try:
        if is_killed:
            wait_until(lambda: not is_alive(int(left)), 10, "what it left is killed")
        assert marked(f"{MARK}={mark}") == ([] if is_killed else [int(left)])
        assert is_alive(int(other))
    finally:
        for process in {int(other), *marked(f"{MARK}={mark}")}:
            os.kill(process, signal.SIGKILL)


def test_the_follower_ends_with_the_block() -> None:
    def followers() -> set[str]:
        found = set()
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdigit() and MARK in (process / "cmdline").read_text():
                    found.add(process.name)
        return found

    before = followers()
    with followed():
        wait_until(lambda: followers() - before, 10, "it follows")
    assert not followers() - before
    assert MARK not in os.environ
