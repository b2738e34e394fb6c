"""Two runs do not write to one output folder; a run that was killed does not keep others out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raymia.storage import lease
from raymia.storage.files import Folder
from raymia.storage.lease import LEASE_FILE, Holder, held, new_run_id, now, read_holder
from raymia.util.errors import InputError, RaymiaError


@pytest.fixture(params=["local", "memory", "no conditions"])
def url(request, tmp_path, monkeypatch):
    """A folder on this machine, in a store, and in one that writes on a condition all the same."""
    if request.param == "no conditions":
        write = MemoryFileSystem.pipe_file
        monkeypatch.setattr(
            MemoryFileSystem, "pipe_file", lambda fs, path, value, **_: write(fs, path, value)
        )
    return str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "SETTLE_REMOTE_SECONDS", 0.2)


def left_by(url, **changes):
    content = {"run": "other", "host": "elsewhere", "pid": 1, "beat": now(), **changes}
    Folder(url).write(LEASE_FILE, json.dumps(content).encode())


def test_a_folder_is_held_while_a_run_lasts_and_free_afterwards(url):
    with held(url, "mine"):
        first = read_holder(Folder(url))
        assert (first.run, first.host, first.pid) == ("mine", socket.gethostname(), os.getpid())
        time.sleep(0.5)
        assert read_holder(Folder(url)).beat > first.beat
    assert read_holder(Folder(url)) is None


def test_a_folder_is_free_after_a_run_that_failed(url):
    with pytest.raises(ZeroDivisionError), held(url, "mine"):
        _ = 1 / 0
    assert read_holder(Folder(url)) is None


def test_a_second_run_is_refused_while_the_first_lives(url):
    with (
        held(url, "first"),
        pytest.raises(InputError, match=f"process {os.getpid()} on .* is writing to"),
        held(url, "second"),
    ):
        raise AssertionError("two runs hold one folder")


def test_a_run_on_another_machine_that_no_longer_writes_is_taken_over(url):
    left_by(url, beat="2020-01-01T00:00:00+00:00")
    started = time.monotonic()
    with held(url, "mine", stale_seconds=0.5) as mine:
        assert time.monotonic() - started > 0.5, "it is watched first: clocks may differ"
        mine.check()
        assert read_holder(Folder(url)).run == "mine"


def test_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path):
    code = (f"import time; from raymia.storage import lease; lease.HEARTBEAT_SECONDS = 0.1\n"
            f"with lease.held({str(tmp_path)!r}, 'killed'): time.sleep(60)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code])
    while read_holder(Folder(str(tmp_path))) is None:
        time.sleep(0.05)
    with pytest.raises(InputError), held(str(tmp_path), "too early", stale_seconds=20):
        raise AssertionError("two runs hold one folder")
    process.kill()
    process.wait()
    started = time.monotonic()
    with held(str(tmp_path), "mine"):
        assert time.monotonic() - started < 5


def gone():
    """Number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


ELSEWHERE = [{"pids": "pid:[1]"}, {"boot": "another"}, {"boot": None, "pids": None}]


@pytest.mark.parametrize("changes", ELSEWHERE)
def test_of_a_process_that_is_not_seen_here_the_same_host_name_says_nothing(changes):
    """As in another container, of which the host name is the same; and of earlier leases."""
    here = replace(Holder.here("other"), pid=gone())
    assert here.is_dead_here()
    assert not replace(here, **changes).is_dead_here()


def test_where_linux_does_not_say_how_processes_are_counted_they_are_watched(monkeypatch):
    monkeypatch.setattr(lease, "_where_pids_are_counted", lambda: (None, None))
    here = replace(Holder.here("other"), pid=gone())
    monkeypatch.setattr(sys, "platform", "linux")
    assert not here.is_dead_here()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert here.is_dead_here()


def test_a_living_run_in_another_container_of_the_same_host_name_is_not_taken_over(url):
    stop, unseen = threading.Event(), gone()

    def live():
        while not stop.wait(0.05):
            left_by(url, host=socket.gethostname(), pid=unseen, boot="b", pids="pid:[1]")

    left_by(url, host=socket.gethostname(), pid=unseen, boot="b", pids="pid:[1]")
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(InputError, match=f"process {unseen} .* is writing to"), held(url, "b"):
            raise AssertionError("two runs hold one folder")
    finally:
        stop.set()
        thread.join()


def test_of_runs_that_start_at_one_moment_one_holds_the_folder(url):
    holding: list[str] = []
    refused: list[str] = []
    ready, others_refused = threading.Barrier(6), threading.Event()

    def run(name):
        ready.wait()
        try:
            with held(url, name):
                holding.append(name)
                assert others_refused.wait(20)
        except InputError:
            refused.append(name)
            if len(refused) == 5:
                others_refused.set()

    threads = [threading.Thread(target=run, args=(f"run{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(holding), len(refused)) == (1, 5)


def test_a_disk_without_hard_links_serves_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with held(str(tmp_path), "mine") as mine:
        mine.check()
        assert [file.name for file in tmp_path.iterdir()] == [LEASE_FILE]
    assert read_holder(Folder(str(tmp_path))) is None


def test_a_run_whose_folder_was_taken_over_does_not_write_its_report(url):
    with held(url, "mine") as mine:
        mine.check()
        left_by(url)
        with pytest.raises(RaymiaError, match="was taken over by a run of process 1 on elsewhere"):
            mine.check()
    assert read_holder(Folder(url)) is not None, "the lease of the other is not removed"


def test_a_lease_that_cannot_be_read_is_none(tmp_path):
    Path(tmp_path, LEASE_FILE).write_text("{")
    assert read_holder(Folder(str(tmp_path))) is None


def test_run_ids_sort_by_time_and_differ():
    ids = [new_run_id() for _ in range(50)]
    assert len({*ids}) == 50
    assert Holder("a", "h", 1, "b").is_dead_here() is False
