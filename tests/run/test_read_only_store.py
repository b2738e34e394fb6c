"""A store that has every answer need not be written to; where something is missing, it must."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_line import raymia
from small_audit import passages, scores_by_row, write_small_audit, write_texts

import raymia as package
from raymia.storage import files
from raymia.storage.files import can_write

SMALL = {
    "neighbors": None,
    "references": None,
    "attacks": ["loss", "min_k"],
    "shift": {"enabled": False},
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """An audit that has run."""
    folder = tmp_path_factory.mktemp("audited")
    base = Path(package.__file__).parent / "demo" / "assets" / "models" / "base"
    file = write_small_audit(folder, None, targets=[{"name": "t", "model": str(base)}], **SMALL)
    assert raymia("audit", file).returncode == 0
    return file


def elsewhere(file, folder, **changes):
    """The same audit with an output of its own."""
    folder.mkdir()
    content = yaml.safe_load(file.read_text()) | {"output": str(folder / "run")} | changes
    other = file.parent / f"{folder.name}.yaml"
    other.write_text(yaml.safe_dump(content))
    return other


def without_overriding_modes():
    """What binds a root to modes as it does others, from the next program on (capabilities(7))."""
    drop_from_bounding_set, override = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, override, 0, 0, 0)


def bound_by_modes(*arguments):
    command = [sys.executable, "-m", "raymia", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "160"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment,
        preexec_fn=without_overriding_modes if os.geteuid() == 0 else None,
    )  # fmt: skip


@pytest.mark.long
def test_a_complete_store_is_scored_and_reported_from_by_who_may_only_read(audited):
    store = audited.parent / "store"
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    other = elsewhere(audited, audited.parent / "theirs")
    for folder in folders:
        folder.chmod(0o555)
    done = bound_by_modes("audit", other, "--redact")
    for folder in folders:
        folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "asked the models 0 questions" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
    first, second = (scores_by_row(audited.parent / name) for name in ("run", "theirs/run"))
    assert sorted(first.values()) == sorted(second.values())
    left = (audited.parent / "theirs" / "run").rglob("scores/*")
    assert not [path for path in left if path.is_file()]


def no_write(monkeypatch, store):
    """A folder that nobody may write to, whoever runs the tests."""
    access = os.access

    def denied(path, mode):
        inside = Path(path).is_relative_to(store)
        return not (inside and mode & os.W_OK) and access(path, mode)

    monkeypatch.setattr(files.os, "access", denied)


def test_what_is_missing_in_a_store_that_cannot_be_written_to_is_refused(audited, monkeypatch):
    store = audited.parent / "store"
    write_texts(audited.parent / "more.jsonl", passages()[:13])
    records = {"members": "more.jsonl", "non_members": "non_members.jsonl"}
    more = elsewhere(audited, audited.parent / "more", records=records)
    no_write(monkeypatch, store)
    assert not can_write(str(store))
    for command in ("plan", "audit"):
        done = raymia(command, more)
        assert done.returncode == 2
        assert f"store: {store} cannot be written to" in done.stderr
    assert raymia("plan", audited).returncode == 0
    shutil.rmtree(audited.parent / "more")


def test_whether_a_folder_can_be_written_to(tmp_path):
    assert can_write(str(tmp_path / "not" / "yet"))
    assert can_write("memory://some/store")
    (tmp_path / "file").touch()
    assert not can_write(str(tmp_path / "file" / "store"))
    assert not can_write("nosuchscheme://x")
