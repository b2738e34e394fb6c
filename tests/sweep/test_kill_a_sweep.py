"""A sweep is killed half-way; the next run tries only what the first had not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ray_fixtures import child_environment, end_marked, ended, start, wait_until
from small_audit import console
from small_sweep import made_spec, with_evidence

from raymia.evidence.sealed import read_sealed
from raymia.run.sweep import run_sweep
from raymia.spec import with_engine
from raymia.spec.file import load_spec
from raymia.storage.files import Folder
from raymia.sweep.record import _LIST

pytestmark = pytest.mark.usefixtures("own_ray")

SHARES = [n / 50 for n in range(1, 51)]
BOUNDS = [n / 5 for n in range(1, 21)]


def recorded(folder: Path) -> list[str]:
    """Keys of all results as they lie in the files, repetitions included."""
    files = sorted(p for p in folder.glob("store/sweeps/*/*.json") if not p.name.startswith("."))
    there = Folder(str(folder / "store"))
    contents = (read_sealed(there, f"sweeps/{f.parent.name}/{f.name}")[0] for f in files)
    return [result.key for content in contents for result in _LIST.validate_json(content)]


def test_what_was_tried_before_a_kill_is_not_tried_again(tmp_path: Path) -> None:
    sweep: dict[str, Any] = {
        "attacks": {"surp": {"share": {"grid": SHARES}, "max_entropy": {"grid": BOUNDS}}}
    }
    spec = made_spec(tmp_path, sweep, records=6000, engine="ray", references=None, neighbors=None)
    with_evidence(spec)
    total = len(SHARES) * len(BOUNDS)
    environment, mark = child_environment()
    command = [sys.executable, "-c", "from raymia.cli.main import main; main()", "sweep",
               str(tmp_path / "audit.yaml")]  # fmt: skip
    with ended(mark):
        driver = start(command, environment, tmp_path / "output.txt")

        def some() -> bool:
            assert driver.poll() is None, (tmp_path / "output.txt").read_text()
            return bool(recorded(tmp_path))

        wait_until(some, 180, "some settings were tried")
        end_marked(mark)  # workers too, as a lost machine does: they would go on for seconds
        driver.wait(30)
    before = len(recorded(tmp_path))
    assert 0 < before < total, "the kill came too early or too late"
    assert not list((tmp_path / "run").glob("sweep.*"))

    result = run_sweep(with_engine(load_spec(tmp_path / "audit.yaml"), "local"), console())
    assert result.settings == total
    assert result.tried_now == total - before
    counts = Counter(recorded(tmp_path))
    assert len(counts) == total
    assert set(counts.values()) == {1}
