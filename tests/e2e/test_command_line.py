"""The command line as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from command_line import raymia
from made_up_run import made_up_curves, made_up_result, made_up_scores
from small_audit import NEIGHBORS, Models, write_small_audit

from raymia.report.files import write_run
from raymia.results.comparison_result import RunComparison
from raymia.results.folder import load_result


@pytest.fixture(scope="module")
def audit_file(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    return write_small_audit(tmp_path_factory.mktemp("commands"), models, self_prompt=True)


def test_help_is_quick_and_names_the_commands() -> None:
    before = os.times()
    command = [sys.executable, "-m", "raymia", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = os.times()
    computed = after.children_user - before.children_user
    assert computed + after.children_system - before.children_system < 2  # no torch, no ray: 0.3 s
    assert done.returncode == 0
    assert all(
        command in done.stdout
        for command in ("audit", "plan", "demo", "attacks", "report", "gate", "compare")
    )


def test_plan_says_what_would_be_asked_and_asks_nothing(audit_file: Path) -> None:
    done = raymia("plan", audit_file)
    assert done.returncode == 0, done.stderr
    assert "12 members, 12 non-members" in done.stdout
    lines = done.stdout.splitlines()
    to_ask = {"neighbors": 24 * NEIGHBORS, "target:tuned": 24 * (2 + NEIGHBORS),
              "reference:base": 24 * (1 + NEIGHBORS),
              "reference:self_prompt": 24 * (1 + NEIGHBORS)}  # fmt: skip
    for stage, count in to_ask.items():
        assert any(stage in line and f" {count} " in line for line in lines), done.stdout
    assert "16 texts" in " ".join(lines)
    assert not (audit_file.parent / "store").exists()
    assert not (audit_file.parent / "run").exists()


def test_an_unknown_key_is_refused_with_the_nearest_right_one(audit_file: Path) -> None:
    wrong = audit_file.with_name("wrong.yaml")
    wrong.write_text(audit_file.read_text().replace("non_members:", "nonmembers:"))
    done = raymia("audit", wrong)
    assert done.returncode == 2
    assert "records.nonmembers: unknown key; did you mean 'non_members'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_says_what_it_can_be_of() -> None:
    done = raymia("demo", "poems")
    assert done.returncode == 2
    assert "'poems' is not one of 'text', 'chat', 'images'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["audit", "plan"])
def test_a_missing_audit_file_is_refused(command: str, tmp_path: Path) -> None:
    done = raymia(command, tmp_path / "none.yaml")
    assert done.returncode == 2
    assert "none.yaml: no such audit file" in done.stderr
    assert done.stdout.startswith("reading ") == (command == "audit")
    assert "Traceback" not in done.stderr


def test_all_that_is_wrong_is_said_at_once_before_a_model_is_loaded(audit_file: Path) -> None:
    wrong = audit_file.with_name("paths.yaml")
    text = audit_file.read_text().replace("members: members.jsonl", "members: gone.jsonl")
    wrong.write_text(text.replace("model: /", "model: /nowhere/", 1))
    done = raymia("audit", wrong)
    assert done.returncode == 2
    assert "gone.jsonl: no such file" in done.stderr
    assert "targets[0].model: no such folder: /nowhere/" in done.stderr
    assert "Ray" not in done.stdout


@pytest.fixture(scope="module")
def stored_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored") / "run"
    scores = made_up_scores()
    write_run(str(folder), made_up_result(scores), [scores], made_up_curves(scores))
    return folder


def test_the_gate_of_a_stored_run_decides_the_exit_code(stored_run: Path) -> None:
    shut = raymia("gate", stored_run, "--fail-if", "*@self_prompt.auc > 0.7",
                  "--fail-if", "base:loss.auc > 0.99")  # fmt: skip
    assert shut.returncode == 4
    assert "Traceback" not in shut.stderr
    assert "gate: closed, 2 of 3 failed, 1 of 3 passed" in shut.stdout
    assert raymia("gate", stored_run, "--fail-if", "loss.auc > 0.99").returncode == 0
    unresolved = ("gate", stored_run, "--fail-if", "loss.tpr@0.1%fpr > 0.9")
    closed = raymia(*unresolved)
    assert closed.returncode == 6
    assert "gate: closed, 2 of 2 undecided" in closed.stdout
    assert raymia(*unresolved, "--undecided", "pass").returncode == 0


def test_a_gate_leaves_the_files_of_a_run_alone_until_it_is_told_to_write(stored_run: Path) -> None:
    names = ("report.html", "metrics.json")
    before = [(stored_run / name).read_bytes() for name in names]
    condition = ("gate", stored_run, "--fail-if", "base:loss.auc > 0.99")
    assert raymia(*condition).returncode == 0
    assert [(stored_run / name).read_bytes() for name in names] == before
    assert not (stored_run / "junit.xml").exists()
    assert raymia(*condition, "--write").returncode == 0
    document = ElementTree.parse(stored_run / "junit.xml").getroot()
    assert document.attrib.items() >= {"tests": "1", "failures": "0", "errors": "0"}.items()
    (stored,) = load_result(str(stored_run)).gate
    assert (stored.condition, stored.status) == ("base:loss.auc > 0.99", "passed")
    assert "base:loss.auc &gt; 0.99" in (stored_run / "report.html").read_text()
    assert (
        raymia("gate", stored_run, "--fail-if", "base:loss.auc > 0.01", "--write").returncode == 4
    )
    assert len(load_result(str(stored_run)).gate) == 2, "what was decided before stays"
    for name, content in zip(names, before, strict=True):
        (stored_run / name).write_bytes(content)
    (stored_run / "junit.xml").unlink()


def test_a_gate_on_metrics_without_scores_says_that_nothing_confirms_them(stored_run: Path) -> None:
    scores = stored_run / "scores.parquet"
    scores.rename(scores.with_suffix(".away"))
    told = raymia("gate", stored_run, "--fail-if", "loss.auc > 0.99").stdout
    scores.with_suffix(".away").rename(scores)
    assert "note: scores.parquet is not beside metrics.json" in told
    assert "note:" not in raymia("gate", stored_run, "--fail-if", "loss.auc > 0.99").stdout


def test_the_exit_codes_of_a_gate_are_in_its_help() -> None:
    for command in ("gate", "audit"):
        told = " ".join(raymia(command, "--help").stdout.replace("│", " ").split())
        assert "6 the gate is closed only because conditions are undecided" in told


def test_a_gate_without_a_sound_condition_is_wrong_input(stored_run: Path) -> None:
    unknown = raymia("gate", stored_run, "--fail-if", "los.auc > 0.7")
    assert unknown.returncode == 2
    assert "no attack 'los'; did you mean 'loss'?" in unknown.stderr
    none = raymia("gate", stored_run)
    assert none.returncode == 2
    assert "has no conditions; give one" in none.stderr


def test_a_wrong_condition_is_refused_before_the_records_are_read(audit_file: Path) -> None:
    done = raymia("audit", audit_file, "--fail-if", "any.tpr@1% > 0.05")
    assert done.returncode == 2
    assert "did you mean 'tpr@1%fpr'?" in done.stderr
    assert not (audit_file.parent / "store").exists()


def test_the_report_of_a_stored_run_is_written_anew(stored_run: Path) -> None:
    page = stored_run / "report.html"
    whole = page.read_text(encoding="utf-8")
    page.unlink()
    done = raymia("report", stored_run)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"report: {page}\n"
    assert page.read_text(encoding="utf-8") == whole
    assert "--redact" in raymia("report", "--help").stdout
    assert raymia("report", stored_run, "--redact").returncode == 0
    metrics = json.loads((stored_run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["redacted"]
    assert raymia("report", stored_run.parent).returncode == 2


def test_two_stored_runs_are_compared(stored_run: Path, tmp_path: Path) -> None:
    done = raymia("compare", stored_run, stored_run, "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stderr
    assert "tuned: no change is shown; " in done.stdout
    comparison = RunComparison.model_validate_json((tmp_path / "c.json").read_text())
    assert comparison.records.common == 180
    (tmp_path / "file").write_text("a file")
    unwritten = raymia("compare", stored_run, stored_run, "--json", tmp_path / "file" / "c.json")
    assert unwritten.returncode == 1
    assert "file/c.json: cannot be written" in unwritten.stderr
    assert "Traceback" not in unwritten.stderr
    wrong = raymia("compare", stored_run, stored_run, "--target", "tuned=bases")
    assert wrong.returncode == 2
    assert "did you mean 'base'?" in wrong.stderr
