"""The command line as a process: versions, endings, narrow terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import raymia
from forks import programs
from forks.programs import RAYMIA, Program
from small_audit import passages, write_small_audit
from tiny_models import BASE

from raymia import __version__

pytestmark = pytest.mark.usefixtures("own_ray")


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "raymia", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_version_is_printed():
    assert run("--version").stdout == f"raymia {__version__}\n"


def test_formulas_are_printed_whole():
    printed = raymia("attacks", columns=300).stdout
    assert "[mean_n q_ref(x~_n) - q_ref(x)] - [mean_n q_target(x~_n) - q_target(x)]" in printed


class Folders:
    target = BASE


def test_ray_that_cannot_start_is_said_without_a_traceback(tmp_path):
    file = write_small_audit(tmp_path, Folders, engine="ray", neighbors=None, references=None)
    # In a process of its own: Ray keeps for good by what kind of token it was started.
    done = programs.raymia("audit", file, environment={**os.environ, "RAY_TMPDIR": str(file)})
    assert done.returncode == 1
    assert "Ray could not be started here: [Errno 20] Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_stopped_run_says_that_it_can_go_on(tmp_path):
    file = write_small_audit(
        tmp_path, Folders, engine="ray", neighbors=None, references=None,
        members=passages()[:60], non_members=passages()[60:120], resources={"block_records": 1},
    )  # fmt: skip
    driver = Program(RAYMIA, "audit", file)
    while not any(tmp_path.glob("store/evidence/*/*/*.parquet")):
        assert not driver.has_ended
        time.sleep(0.1)
    driver.send(signal.SIGTERM)
    done = driver.wait(60)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr.splitlines()[-1].startswith("stopped; what was done is stored")
    assert "Traceback" not in done.stderr
    assert "***" not in done.stderr
