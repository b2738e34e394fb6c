"""`ray job submit` against a real cluster, with token authentication on."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster_head import Head
from small_audit import Models, passages, write_small_audit

import raymia

pytestmark = pytest.mark.usefixtures("own_ray")

REPOSITORY = Path(raymia.__file__).parent.parent
RAY = str(Path(sys.executable).with_name("ray"))
RECORDS = 16
CLIENT_LINE = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+\t(INFO|SUCC|ERR|WARN)")


@dataclass(frozen=True)
class Job:
    code: int
    output: str

    @property
    def lines(self) -> list[str]:
        """What the job itself printed, without what the submitting client says around it."""
        printed = self.output.split("Running entrypoint for job", 1)[1].splitlines()[1:]
        return [*itertools.takewhile(lambda line: not CLIENT_LINE.match(line), printed)]

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.lines[-1])
        assert not any(line.startswith("{") for line in self.lines[:-1]), self.output
        return summary


def submit(head: Head, folder: Path, *arguments: str) -> Job:
    done = subprocess.run(
        [RAY, "job", "submit", "--address", head.address, "--working-dir", str(folder), "--",
         "python", "jobs/audit.py", *arguments],
        env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    return Job(done.returncode, done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """What a user submits: the script, the audit file and the records; the store is elsewhere."""
    folder = tmp_path_factory.mktemp("submitted")
    kept = tmp_path_factory.mktemp("kept")
    texts = passages()
    write_small_audit(
        folder, models, engine="ray", members=texts[: RECORDS // 2],
        non_members=texts[24 : 24 + RECORDS // 2], neighbors=None, references=None,
        store=str(kept / "store"), output=str(kept / "run"),
    )  # fmt: skip
    (folder / "jobs").mkdir()
    shutil.copy(REPOSITORY / "jobs" / "audit.py", folder / "jobs")
    return folder


@pytest.fixture(scope="module")
def first(head: Head, folder: Path) -> Job:
    """Asked in the job's own process: that the cluster's actors answer is for `raymia submit`."""
    return submit(head, folder, "audit.yaml", "--engine=local")


def test_a_job_runs_the_audit_and_prints_its_summary_last(first: Job) -> None:
    assert first.code == 0, first.output
    summary = first.summary
    assert summary["complete"] is True
    assert summary["problems"] == []
    assert summary["name"] == "small"
    assert summary["records"] == {
        "members": RECORDS // 2, "non_members": RECORDS // 2, "candidates": 0, "set_aside": 0,
    }  # fmt: skip
    assert summary["asked"] == 2 * RECORDS  # and in lower case
    assert summary["stored"] == 0
    assert Path(summary["report"]).is_file()
    (best,) = summary["best"]
    assert best["target"] == "tuned"
    assert 0.5 < best["auc"] <= 1
    assert set(best["tpr_at_fpr"]) == {"0.1", "0.01", "0.001"}
    assert set(best["tpr_at_fpr"].values()) == {None}  # 8 non-members cannot resolve them
    assert "warning:" not in first.output


@pytest.mark.slow
def test_a_job_that_is_submitted_again_asks_nothing(head: Head, folder: Path, first: Job) -> None:
    assert first.code == 0, first.output
    again = submit(head, REPOSITORY, str(folder / "audit.yaml"))  # as from a clone
    assert again.code == 0, again.output
    assert again.summary["asked"] == 0
    assert again.summary["stored"] == first.summary["asked"]
    assert again.summary["best"] == first.summary["best"]


@pytest.mark.slow  # tests/jobs/test_audit_script.py has the script say it without a cluster
def test_a_job_with_a_wrong_audit_file_fails_and_says_why(head: Head, folder: Path) -> None:
    text = (folder / "audit.yaml").read_text()
    (folder / "wrong.yaml").write_text(text.replace("metrics:", "metrix:"))
    job = submit(head, folder, "wrong.yaml")
    assert job.code != 0
    assert job.summary["complete"] is False
    (problem,) = job.summary["problems"]
    assert "metrix: unknown key; did you mean 'metrics'?" in problem
    assert "Traceback" not in job.output
