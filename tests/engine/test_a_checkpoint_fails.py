"""A checkpoint that fails is named with its cause, and does not stop the others."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from small_audit import BASE, NEIGHBORS, Models, console, passages, reweigh, write_small_audit
from tiny_models import save_adapter, save_tiny

from raymia.engine.stage import MAX_DEATHS
from raymia.results.ranking import rank
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.run.status import read_status
from raymia.spec import with_engine
from raymia.spec.file import load_spec
from raymia.util.errors import RaymiaError

EACH = 3  # members, and as many non-members
RECORDS = 2 * EACH
OF_TARGET = RECORDS * (2 + NEIGHBORS)  # and in lower case
OF_BASE = RECORDS * (1 + NEIGHBORS)

REFUSAL = "these weights are not to be had"
REFUSES = """
from pathlib import Path
from transformers import GPT2LMHeadModel

class Refuses(GPT2LMHeadModel):
    def __init__(self, config):
        super().__init__(config)
        if Path(config.stop_file).exists():
            raise ValueError("these weights are not to be had")
"""

DIES = """
import os, signal
from pathlib import Path
from transformers import GPT2LMHeadModel

class Dies(GPT2LMHeadModel):
    def __init__(self, config):
        super().__init__(config)
        with Path(config.notes).open("a") as file:
            file.write("x")
        if config.dies == "loading":
            os.kill(os.getpid(), signal.SIGKILL)

    def forward(self, input_ids, **options):
        if input_ids.numel() > 60:  # more than it is tried on
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(input_ids, **options)
"""


@pytest.fixture
def refuses(tmp_path: Path, models: Models) -> tuple[Path, Path]:
    """A checkpoint that cannot be loaded while a file exists, and the file."""
    folder, stop = tmp_path / "refuses", tmp_path / "stop"
    reweigh(models.target, folder, lambda tensor: tensor * 0.9)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "refuses.Refuses"}, "stop_file": str(stop)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "refuses.py").write_text(REFUSES)
    stop.touch()
    return folder, stop


def audit(folder: Path, models: Models, targets: list[dict[str, Any]], **settings: Any) -> Path:
    texts = passages(28)
    return write_small_audit(
        folder, models, members=texts[:EACH], non_members=texts[24 : 24 + EACH],
        targets=targets, **settings,
    )  # fmt: skip


def asked(result: RunResult) -> dict[str, int]:
    return {stage.name: stage.asked for stage in result.stages}


def scored(folder: Path) -> set[str]:
    return set(pq.read_table(folder / "run" / "scores.parquet")["target"].to_pylist())


@pytest.mark.usefixtures("local_ray")
def test_the_others_are_scored_and_the_next_run_tries_the_failed_one_again(
    tmp_path: Path, models: Models, refuses: tuple[Path, Path]
) -> None:
    folder, stop = refuses
    file = audit(
        tmp_path, models,
        [{"name": "bad", "model": str(folder), "trust_remote_code": True},
         {"name": "tuned", "model": str(models.target)},
         {"name": "again", "model": str(folder), "trust_remote_code": True}],
        neighbors=None, engine="ray",
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    cause = f"{folder}: cannot be loaded as a causal language model: {REFUSAL}"
    assert {one.name: one.reason for one in result.failed} == {
        "bad": cause, "again": f"it needs what bad failed to answer: {cause}",
    }  # fmt: skip
    assert not result.complete
    assert not result.succeeded
    of_target = 2 * RECORDS  # and in lower case
    assert asked(result) == {
        "target:bad": 0, "target:again": 0, "reference:base": RECORDS, "target:tuned": of_target,
    }  # fmt: skip
    assert scored(tmp_path) == {"tuned"}
    found = read_status(str(tmp_path / "run"))
    assert found.ended
    assert {name: progress.state for name, progress in found.targets.items()} == {
        "bad": "failed", "tuned": "done", "again": "failed",
    }  # fmt: skip
    assert found.targets["bad"].why == cause
    assert {ranking.target for ranking in rank(result.metrics)} == {"tuned"}
    assert f"target bad failed and is not ranked: {cause}" in (
        tmp_path / "run" / "report.html"
    ).read_text(encoding="utf-8")

    stop.unlink()
    mended = run_audit(with_engine(load_spec(file), "local"), console())
    assert mended.succeeded
    assert {name: n for name, n in asked(mended).items() if n} == {"target:bad": of_target}
    assert scored(tmp_path) == {"bad", "tuned", "again"}


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("dies", ["loading", "asked"])
def test_a_checkpoint_whose_processes_are_killed_again_and_again_is_given_up(
    tmp_path: Path, models: Models, dies: str
) -> None:
    """As the kernel does where memory is short; Ray would start them again for ever."""
    folder, notes = tmp_path / "large", tmp_path / "loads"
    reweigh(models.target, folder, lambda tensor: tensor * 0.9)
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoModelForCausalLM": "dies.Dies"}
    config |= {"auto_map": code, "notes": str(notes), "dies": dies}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "dies.py").write_text(DIES)
    file = audit(
        tmp_path, models,
        [{"name": "large", "model": str(folder), "trust_remote_code": True},
         {"name": "tuned", "model": str(models.target)}],
        references=None, neighbors=None, engine="ray",
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    ((name, reason),) = ((one.name, one.reason) for one in result.failed)
    assert name == "large"
    assert reason.startswith(
        f"target:large: the process of an actor died {MAX_DEATHS} times in a row while it loaded"
    )
    assert re.search(r"it takes about \d+\.\d\d GiB and shares the \d+ GiB of its machine", reason)
    assert notes.read_text() == "x" * MAX_DEATHS
    assert scored(tmp_path) == {"tuned"}


def test_an_adapter_that_does_not_fit_leaves_those_on_the_same_base_alone(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raymia.models.causal.resolver._fitting", lambda *_, **__: None)
    wider = save_tiny(tmp_path / "wider", "gpt2", n_embd=48)
    adapters = {
        "one": save_adapter(tmp_path / "one", BASE, seed=1),
        "wide": save_adapter(tmp_path / "wide", wider),
        "two": save_adapter(tmp_path / "two", BASE, seed=2),
    }
    targets = [{"name": n, "model": str(BASE), "adapter": str(a)} for n, a in adapters.items()]
    result = run_audit(load_spec(audit(tmp_path, models, targets)), console())
    ((name, reason),) = ((one.name, one.reason) for one in result.failed)
    assert name == "wide"
    assert reason.startswith(f"{adapters['wide']}: this adapter does not fit its base")
    assert asked(result) == {
        "neighbors": RECORDS * NEIGHBORS, "reference:base": OF_BASE,
        "target:one": OF_TARGET, "target:wide": 0, "target:two": OF_TARGET,
    }  # fmt: skip
    assert scored(tmp_path) == {"one", "two"}


def test_a_reference_that_cannot_be_made_is_its_targets_failure(
    tmp_path: Path, models: Models, refuses: tuple[Path, Path]
) -> None:
    file = audit(
        tmp_path, models,
        [{"name": "bad", "model": str(refuses[0]), "trust_remote_code": True},
         {"name": "tuned", "model": str(models.target)}],
        self_prompt=True, neighbors=None, attacks=["loss", "ratio"],
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    ((name, reason),) = ((one.name, one.reason) for one in result.failed)
    assert name == "bad"
    assert reason.startswith("reference self_prompt: ")
    assert REFUSAL in reason
    assert {n: count for n, count in asked(result).items() if count} == {
        f"{stage}": RECORDS
        for stage in ("target:tuned", "reference:base", "reference:self_prompt:tuned")
    }
    assert scored(tmp_path) == {"tuned"}


def test_a_checkpoint_that_answers_with_errors_alone_has_failed(
    tmp_path: Path, models: Models
) -> None:
    targets = [{"name": "tuned", "model": str(models.target)},
               {"name": "broken", "model": str(models.broken)}]  # fmt: skip
    settings: dict[str, Any] = {"references": None, "neighbors": None}
    result = run_audit(load_spec(audit(tmp_path, models, targets, **settings)), console())
    ((name, reason),) = ((one.name, one.reason) for one in result.failed)
    assert name == "broken"
    assert reason.startswith(f"every one of its {2 * RECORDS} answers is an error, as: ")
    assert result.complete, "every question has its answer, and none is asked again"
    assert not result.succeeded
    assert result.verdict.finding == "incomplete"
    assert "The audit is not finished: 1 checkpoint failed. So far: " in result.verdict.sentence


def test_a_failing_reference_that_targets_share_stops_the_run(
    tmp_path: Path, models: Models, refuses: tuple[Path, Path]
) -> None:
    targets = [{"name": n, "model": str(m)} for n, m in (("a", models.target), ("b", models.other))]
    base = {"model": str(refuses[0]), "trust_remote_code": True}
    file = audit(tmp_path, models, targets, references={"base": base}, neighbors=None)
    with pytest.raises(RaymiaError, match=REFUSAL):
        run_audit(load_spec(file), console())
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_run_of_which_every_checkpoint_fails_says_why_and_writes_no_report(
    tmp_path: Path, models: Models, refuses: tuple[Path, Path]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(refuses[0], other)
    reweigh(models.other, other, lambda tensor: tensor)
    shutil.copy(refuses[0] / "config.json", other / "config.json")
    targets = [{"name": name, "model": str(path), "trust_remote_code": True}
               for name, path in (("a", refuses[0]), ("b", other))]  # fmt: skip
    file = audit(tmp_path, models, targets, references=None, neighbors=None)
    with pytest.raises(RaymiaError) as caught:
        run_audit(load_spec(file), console())
    assert str(caught.value).splitlines() == [
        f"target {name} failed: {path}: cannot be loaded as a causal language model: {REFUSAL}"
        for name, path in (("a", refuses[0]), ("b", other))
    ]
    assert not (tmp_path / "run" / "metrics.json").exists()
