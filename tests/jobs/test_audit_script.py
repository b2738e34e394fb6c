"""What jobs/audit.py prints and returns, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script
from small_audit import Models, console, write_small_audit

from raymia.cli.gate import EXIT_GATE_FAILED
from raymia.cli.jobs import lost_folders
from raymia.cli.main import EXIT_FAILED, EXIT_INCOMPLETE, EXIT_WRONG_INPUT
from raymia.results.gate_result import GateOutcome
from raymia.run import audit
from raymia.run.asking import AskOutcome
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("jobs/audit.py")


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def test_wrong_input_is_summed_up(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main([str(tmp_path / "none.yaml")]) == EXIT_WRONG_INPUT
    summary = last_line(capsys)
    assert summary["complete"] is False
    assert "no such audit file" in summary["problems"][0]
    assert summary["name"] is None


def test_an_incomplete_run_is_summed_up_with_what_it_has(
    script: ModuleType,
    tmp_path: Path,
    models: Models,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = write_small_audit(tmp_path, models, references=None, neighbors=None)
    monkeypatch.setattr("raymia.run.audit.ask", lambda plan, *_, **__: AskOutcome(plan))
    assert script.main([str(file)]) == EXIT_INCOMPLETE
    summary = last_line(capsys)
    assert summary["complete"] is False
    assert summary["problems"] == ["target:tuned: 48 answers are missing"]
    assert summary["records"]["members"] == 12
    assert (summary["asked"], summary["best"]) == (0, [])
    assert not run_audit(load_spec(file), console()).complete


def test_conditions_are_decided_with_the_codes_of_the_command_line(
    script: ModuleType,
    tmp_path: Path,
    models: Models,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    condition = "any.auc > 0.999"
    file = write_small_audit(tmp_path, models, references=None, neighbors=None)
    assert script.main([str(file), "--fail-if", "lost.auc > 0.5"]) == EXIT_WRONG_INPUT
    assert "did you mean 'loss'?" in last_line(capsys)["problems"][0]
    monkeypatch.setattr("raymia.run.audit.ask", lambda plan, *_, **__: AskOutcome(plan))
    assert script.main([str(file), "--fail-if", condition]) == EXIT_INCOMPLETE
    (outcome,) = last_line(capsys)["gate"]
    assert (outcome["condition"], outcome["status"]) == (condition, "not_evaluated")
    finished = run_audit(load_spec(file), console()).model_copy(
        update={"complete": True, "gate": [GateOutcome(**outcome)]}
    )
    monkeypatch.setattr(audit, "run_audit", lambda *_: finished)
    assert script.main([str(file), "--fail-if", condition]) == EXIT_GATE_FAILED


def test_a_failure_nobody_foresaw_is_summed_up_after_its_traceback(
    script: ModuleType,
    tmp_path: Path,
    models: Models,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("one by none")

    file = write_small_audit(tmp_path, models, references=None, neighbors=None)
    monkeypatch.setattr("raymia.run.audit.ask", fail)
    assert script.main([str(file)]) == EXIT_FAILED
    printed = capsys.readouterr()
    assert "Traceback" in printed.err
    summary = json.loads(printed.out.splitlines()[-1])
    assert summary["problems"] == ["ZeroDivisionError: one by none"]
    assert summary["name"] == "small"


def test_folders_that_ray_deletes_after_the_job_are_warned_of(
    tmp_path: Path, models: Models
) -> None:
    lost = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    file = write_small_audit(lost, models, output="s3://bucket/run")
    (warning,) = lost_folders(load_spec(file))
    assert warning.startswith(f"store is {lost}/store, which is in the job's working directory")
    kept = write_small_audit(tmp_path / "kept", models)
    assert lost_folders(load_spec(kept)) == []
