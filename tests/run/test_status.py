"""What a run is doing can be read from another process, and after the run was killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from small_inputs import answer, audit
from tiny_models import PARAPHRASER, save_tiny
from typer.testing import CliRunner

from raymia.cli.main import app
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.results.events import read_events
from raymia.run import status
from raymia.run.audit import run_audit
from raymia.run.status import EventLog, Watch, last_run, read_status, recorded
from raymia.storage.files import Folder
from raymia.storage.lease import LEASE_FILE, held, new_run_id
from raymia.util.errors import InputError, RaymiaError
from raymia.util.reasons import CAME
from raymia.util.terminal import terminal


@dataclass
class Line:
    done: int = 0
    total: int = 0
    why_failed: str = ""


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def plans(tmp_path, tiny_gpt2):
    """Of three checkpoints, two of which are the same; nothing is stored."""
    other = save_tiny(tmp_path / "other", "gpt2", seed=5)
    targets = [{"name": name, "model": str(path)}
               for name, path in (("one", tiny_gpt2), ("two", other), ("copy", other))]  # fmt: skip
    spec = audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, targets=targets, neighbors=None)
    return plan_audit(resolve_inputs(spec), EvidenceStore(spec.store))


def states(url):
    return {name: str(progress) for name, progress in read_status(url).targets.items()}


# --------------------------------------------------------------------------- the log


def test_every_event_says_its_run_and_time_and_is_seen_at_once(url):
    log = EventLog(url, "r1")
    log.write({"event": "a"}, {"event": "b"})
    log.write({"event": "c"})
    (events,) = read_events(Folder(url)).values()
    assert [e["event"] for e in events] == ["a", "b", "c"]
    assert [e["n"] for e in events] == [0, 1, 2]
    assert {e["run"] for e in events} == {"r1"}
    assert all(e["time"].endswith("+00:00") for e in events)


def test_the_log_of_a_long_run_is_few_files_and_loses_nothing(url):
    log = EventLog(url, "r1")
    for n in range(200):
        log.write({"event": str(n)})
    assert len(Folder(url).names("events", ".jsonl")) <= status.MAX_PARTS + 1
    assert [e["event"] for e in read_events(Folder(url))["r1"]] == [str(n) for n in range(200)]
    log.close()
    assert Folder(url).names("events", ".jsonl") == ["r1.jsonl"]
    assert len(read_events(Folder(url))["r1"]) == 200


def test_a_log_that_was_killed_while_it_merged_repeats_no_event(tmp_path):
    log = EventLog(str(tmp_path), "r1")
    log.write({"event": "a"})
    part = (tmp_path / "events" / "r1-000000.jsonl").read_bytes()
    log.close()
    (tmp_path / "events" / "r1-000000.jsonl").write_bytes(part)
    assert len(read_events(Folder(str(tmp_path)))["r1"]) == 1


# -------------------------------------------------------------------- states, by counts


def test_each_checkpoint_waits_is_prepared_scored_and_done(url, plans):
    one, two = (sum(s.to_ask for s in p.stages if s.only_for) for p in plans[:2])
    with recorded(url, "r1", "mine", ["one", "two", "copy"]) as log:
        watch = Watch(log, plans)
        assert states(url) == dict.fromkeys(("one", "two", "copy"), "waiting")
        lines = {"write texts: self_prompt:one": Line(1, 4)}
        watch.look(lines)
        assert states(url)["one"] == "preparing: write texts: self_prompt:one, 1 of 4"
        lines = {"write texts: self_prompt:one": Line(4, 4), "target:one": Line(5, 12)}
        watch.look(lines)
        assert states(url)["one"] == f"scoring 5 of {one}"
        assert states(url)["two"] == "waiting"
        lines |= {s.name: Line(s.to_ask, s.to_ask) for s in plans[0].stages}
        lines["target:two"] = Line(2, 12, "its weights are gone")
        watch.look(lines)
        assert states(url) == {
            "one": "done", "two": "failed: its weights are gone",
            "copy": "failed: its weights are gone",
        }  # fmt: skip
        assert read_status(url).targets["two"].done == 2
        assert read_status(url).targets["two"].total == two
        watch.end({"two": "its weights are gone"}, {"one": 0, "two": two, "copy": two - 1})
    assert states(url) == {
        "one": "done", "two": "failed: its weights are gone", "copy": "waiting",
    }  # fmt: skip
    assert read_status(url).ended


def test_counts_alone_are_told_now_and_then(url, plans, monkeypatch):
    log = EventLog(url, "r1")
    watch = Watch(log, plans)
    for done in range(1, 9):
        watch.look({"target:one": Line(done, 12)})
    assert sum(e["target"] == "one" for e in read_events(Folder(url))["r1"]) == 2
    monkeypatch.setattr(status, "PROGRESS_SECONDS", 0.0)
    watch.look({"target:one": Line(9, 12)})
    assert read_events(Folder(url))["r1"][-1]["done"] == 9


def test_what_is_stored_is_done_before_anything_is_asked(url, tmp_path, tiny_gpt2):
    spec = audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, neighbors=None, references=None)
    store = EvidenceStore(spec.store)
    inputs = resolve_inputs(spec)
    for stage in plan_audit(inputs, store)[0].stages:
        for planned in stage.questions:
            answer(store, planned)
    Watch(EventLog(url, "r1"), plan_audit(inputs, store))
    (event,) = read_events(Folder(url))["r1"]
    assert (event["state"], event["done"], event["total"]) == ("done", 12, 12)


# ---------------------------------------------------------------- how a run came to its end


def test_a_run_that_fails_says_why(url):
    with pytest.raises(RaymiaError), recorded(url, "r1", "mine", ["one"]):
        raise RaymiaError("the store is full")
    found = read_status(url)
    assert (found.ended, found.why, found.is_dead) == (True, "the store is full", False)
    assert "with an error: the store is full" in found.summary()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(143)])
def test_a_run_that_was_stopped_says_so_and_no_error(url, stop):
    with pytest.raises(type(stop)), recorded(url, "r1", "mine", ["one"]):
        raise stop
    summary = read_status(url).summary()
    assert summary.startswith("stopped 0 s ago")
    assert "error" not in summary


def test_the_last_of_several_runs_is_told(url):
    for run in ("20260101T000000-b", "20260101T000001-a"):
        with recorded(url, run, "mine", ["one"]):
            pass
    assert read_status(url).run == "20260101T000001-a"
    assert len(read_events(Folder(url))) == 2


def test_a_run_after_the_clock_went_back_is_the_last_all_the_same(url):
    assert last_run(url) == ""
    ahead = "20991231T235959-ffffff"
    with recorded(url, ahead, "the first", ["one"]):
        pass
    then = new_run_id(last_run(url))
    assert then.startswith("21000101T000000-")
    with recorded(url, then, "the second", ["one"]):
        assert read_status(url).audit == "the second"
    assert list(read_events(Folder(url))) == [ahead, then]


@pytest.mark.parametrize("line", ['{"run": "r1"', "[]", '{"run": "r1"}'])
def test_a_line_that_is_no_event_is_refused_with_its_place(url, line):
    with recorded(url, "r1", "mine", ["one"]):
        pass
    Folder(url).write("events/r0.jsonl", f"{line}\n".encode())
    with pytest.raises(InputError, match=r"events/r0\.jsonl line 1: not an event of a run; delete"):
        read_status(url)


def test_a_folder_without_a_run_is_refused(url):
    with pytest.raises(InputError, match="no run has written events here"):
        read_status(url)


def test_a_run_lives_as_long_as_it_renews_its_lease(url):
    with held(url, "r1"):
        log = EventLog(url, "r1")
        log.write({"event": "run_started", "targets": ["one"], "audit": "mine"})
        found = read_status(url)
        assert not found.is_dead
        assert found.summary().startswith("running, last sign of life 0 s ago")


CODE = """
import sys, time
from raymia.storage.lease import held
from raymia.run.status import recorded
with held(sys.argv[1], "r1"), recorded(sys.argv[1], "r1", "mine", ["one"]) as log:
    log.write({"event": "target", "target": "one", "state": "scoring", "done": 3, "total": 9})
    time.sleep(100)
"""


@pytest.mark.long
def test_a_killed_run_is_said_to_be_dead_and_what_it_had_done_is_kept(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)])
    while not (Path(tmp_path) / "events" / "r1-000001.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert "running" in read_status(str(tmp_path)).summary()
    process.kill()
    process.wait()
    found = read_status(str(tmp_path))
    assert found.is_dead
    assert found.summary().startswith("killed: its last sign of life was ")
    assert states(str(tmp_path)) == {"one": "scoring 3 of 9"}


def test_the_command_takes_the_output_folder_or_the_audit_file(tmp_path, tiny_gpt2):
    output = str(tmp_path / "run")
    spec = audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, output=output)
    file = tmp_path / "audit.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    with recorded(output, "r1", "mine", ["one", "[bold]two"]) as log:
        log.write({"event": "target", "target": "one", "state": "failed", "done": 0, "total": 9,
                   "why": "no [weights]"})  # fmt: skip
    for given in (output, str(file)):
        for follow in ([], ["--follow"]):
            result = CliRunner().invoke(app, ["status", given, *follow], env={"COLUMNS": "200"})
            assert result.exit_code == 0, result.output
            for says in ("Audit mine, run r1\n", "failed: no [weights]", "[bold]two", "ended "):
                assert says in result.output
            assert result.output.endswith(" s ago\n")


def test_a_lease_of_another_run_says_nothing_of_this_one(tmp_path):
    log = EventLog(str(tmp_path), "r1")
    log.write({"event": "run_started", "targets": [], "audit": "mine"})
    lease = {"run": "r2", "host": "h", "pid": os.getpid(), "beat": "2999-01-01T00:00:00+00:00"}
    (tmp_path / LEASE_FILE).write_text(json.dumps(lease))
    assert read_status(str(tmp_path)).last_sign.year < 2999


@pytest.mark.parametrize("redact", [True, False])
def test_an_audit_that_is_redacted_redacts_its_events(tmp_path, tiny_gpt2, monkeypatch, redact):
    def fail(*_, **__):
        raise RaymiaError(f"{tmp_path}/members.jsonl: refused{CAME}a text of its own")

    monkeypatch.setattr("raymia.run.audit.ask", fail)
    spec = audit(
        tmp_path, tiny_gpt2, PARAPHRASER, report={"redact": redact}, output=f"{tmp_path}/o"
    )
    with pytest.raises(RaymiaError, match="a text of its own"):
        run_audit(spec, terminal())
    (events,) = read_events(Folder(f"{tmp_path}/o")).values()
    told = json.dumps(events)
    assert "refused" in told
    assert ("a text of its own" in told, "members.jsonl" in told) == (not redact, not redact)
