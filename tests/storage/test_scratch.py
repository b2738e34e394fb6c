"""Scratch folders are gone when their process is, however it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raymia.storage.scratch import scratch

HOLDS = """
import sys
from raymia.storage.scratch import scratch
with scratch() as folder:
    (folder / "large").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_there_in_the_block_and_gone_after_it(place: Path) -> None:
    with scratch() as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert not list(place.iterdir())


def test_a_folder_is_gone_after_an_error(place: Path) -> None:
    with pytest.raises(ValueError, match="wrong"), scratch():
        raise ValueError("wrong")
    assert not list(place.iterdir())


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(
    place: Path,
) -> None:
    killed, left = holder()
    living, held = holder()
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert (left / "large").exists()
    with scratch() as folder:
        assert not left.exists()
        assert (held / "large").exists()
        assert folder.exists()
    living.communicate("", timeout=30)
    assert not list(place.iterdir())
