"""The engine `local`: all of an audit in one process, and the same in the end as on Ray."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from forks.programs import RAYMIA, Program, run
from small_audit import (
    BASE,
    NEIGHBORS,
    Models,
    console,
    parts,
    passages,
    raw_rows,
    reweigh,
    scores_by_row,
    write_small_audit,
)
from small_image_audit import SHAPE, TIMESTEPS, write_image_audit
from small_sweep import made_spec, with_evidence

from raymia.engine.base import engine
from raymia.engine.here import executor as here
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.results.result import RunResult
from raymia.run import audit as audit_module
from raymia.run.audit import run_audit
from raymia.run.status import read_status
from raymia.run.sweep import run_sweep
from raymia.spec import EngineKind, PoolSpec, ResourcesSpec, with_engine
from raymia.spec.file import load_spec
from raymia.storage.files import Folder
from raymia.util.errors import InputError, RaymiaError

EACH = 4  # members, and as many non-members
KINDS = ("text.tokens", "text.lowercase", "text.neighbors", "neighbors.mask_fill")
LOCAL = {"engine": "local", "block_records": 1, "reference": {"cpus": 1}}


def texts_audit(folder: Path, models: Models, **settings: Any) -> Path:
    texts = passages()
    return write_small_audit(
        folder, models, members=texts[:EACH], non_members=texts[24 : 24 + EACH],
        **{"resources": LOCAL, **settings},
    )  # fmt: skip


def run_with(file: Path, kind: EngineKind) -> tuple[RunResult, str]:
    shown = console()
    result = run_audit(with_engine(load_spec(file), kind), shown)
    return result, shown.file.getvalue()  # type: ignore[attr-defined]


def asked(result: RunResult) -> dict[str, int]:
    return {stage.name: stage.asked for stage in result.stages}


def stored(store: Path) -> dict[str, list[str]]:
    """All rows of all evidence, by key, whatever files they are in."""
    found: dict[str, list[str]] = {}
    for file in sorted(store.glob("evidence/*/*/*.parquet")):
        rows = found.setdefault(f"{file.parent.parent.name}/{file.parent.name}", [])
        rows += [repr(row) for row in pq.read_table(file).to_pylist()]
    return {key: sorted(rows) for key, rows in found.items()}


# --------------------------------------------------------------------- the same as on Ray


@pytest.fixture(scope="module")
def of_texts(
    tmp_path_factory: pytest.TempPathFactory,
    models: Models,
    local_ray: None,  # noqa: ARG001
) -> dict[str, Any]:
    """The folder of an audit of texts with every kind of stage, its result and its output, by
    engine."""
    found = {}
    for kind in ("local", "ray"):
        folder = tmp_path_factory.mktemp(kind)
        file = texts_audit(folder, models, self_prompt=True)
        found[kind] = (folder, *run_with(file, kind))  # type: ignore[arg-type]
    return found


def test_texts_come_to_the_same_scores_and_the_same_evidence(of_texts: dict[str, Any]) -> None:
    (local, result, _), (ray, other, _) = of_texts["local"], of_texts["ray"]
    assert result.complete
    assert scores_by_row(local / "run") == scores_by_row(ray / "run")
    assert stored(local / "store") == stored(ray / "store")
    assert asked(result) == asked(other)
    assert [stage.questions for stage in result.stages] == [s.questions for s in other.stages]


def test_progress_is_told_in_the_same_lines(of_texts: dict[str, Any]) -> None:
    for kind in ("local", "ray"):
        told = " ".join(of_texts[kind][2].split())
        records = 2 * EACH
        assert f"target:tuned {records * (2 + NEIGHBORS)} of {records * (2 + NEIGHBORS)}" in told
        assert "write texts: self_prompt:tuned 16 of 16" in told
        events = read_status(str(of_texts[kind][0] / "run"))
        assert events.ended
        assert events.targets["tuned"].state == "done"
    assert "Ray" not in of_texts["local"][2]


@pytest.mark.usefixtures("local_ray")
def test_images_come_to_the_same_scores_and_the_same_evidence(tmp_path: Path) -> None:
    model = tmp_path / "model"
    fresh_pipeline(model, SHAPE, channels=(16, 32), attention=False)
    made = {
        "kind": "self_generated", "images": 32, "sampling_steps": 4, "generation_batch": 16,
        "training": {"steps": 20, "batch_size": 8, "warmup": 2},
    }  # fmt: skip
    results = {}
    for kind in ("local", "ray"):
        file = write_image_audit(
            tmp_path / kind, model, references={"self_generated": made},
            probes={"denoising": {"timesteps": TIMESTEPS, "draws": 1}},
            attacks=["loss"],
            resources={"block_records": 16, "reference": {"cpus": 1}},
        )  # fmt: skip
        results[kind] = run_with(file, kind)[0]  # type: ignore[arg-type]
    assert results["local"].complete
    local, ray = tmp_path / "local", tmp_path / "ray"
    assert scores_by_row(local / "run") == scores_by_row(ray / "run")
    assert stored(local / "store") == stored(ray / "store")


def test_a_large_reduction_is_done_here_too(
    of_texts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = of_texts["local"][0]
    before = scores_by_row(folder / "run")
    monkeypatch.setattr(audit_module, "MAX_HERE", 0)
    result, printed = run_with(folder / "audit.yaml", "local")
    assert sum(asked(result).values()) == 0
    assert scores_by_row(folder / "run") == before
    assert "scored targets 1 of 1" in printed


@pytest.mark.usefixtures("local_ray")
def test_a_sweep_tries_the_same_settings(tmp_path: Path) -> None:
    surp = {"share": {"uniform": [0.05, 1.0]}, "max_entropy": {"loguniform": [0.2, 8]}}
    sweep: dict[str, Any] = {
        "attacks": {"surp": surp}, "search": "optuna", "samples": 8, "seed": 1
    }  # fmt: skip
    rows, winners = {}, {}
    for kind in ("local", "ray"):
        spec = with_engine(made_spec(tmp_path / kind, sweep), kind)  # type: ignore[arg-type]
        with_evidence(spec)
        winners[kind] = run_sweep(spec, console()).winners
        rows[kind] = pq.read_table(f"{spec.output}/sweep.parquet").to_pylist()
    assert rows["local"] == rows["ray"]
    assert winners["local"] == winners["ray"]


# ------------------------------------------------------------------------------ no Ray


WATCHED = """
import socket, sys
from pathlib import Path

def refuse(*_):
    raise AssertionError("a port is opened")

socket.socket.listen = refuse

def listening():
    own = {link.readlink().name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.append(fields[1])
    return found

from raymia.cli.main import app

app(["audit", sys.argv[1], "--engine", "local"], standalone_mode=False)
assert "ray" not in sys.modules, "Ray was imported"
assert not listening(), listening()
print("no Ray, no port")
"""


def test_in_one_process_without_ray_and_without_a_port(tmp_path: Path, models: Models) -> None:
    file = texts_audit(tmp_path, models, self_prompt=True, resources={"block_records": 4})
    nowhere = {**os.environ, "RAY_ADDRESS": "ray://nowhere:1"}
    done = run(WATCHED, file, seconds=120, environment=nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("no Ray, no port\n")
    assert (tmp_path / "run" / "report.html").exists()


def test_what_was_set_in_the_process_is_as_it_was(tmp_path: Path, models: Models) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    threads = torch.get_num_threads()
    environment = dict(os.environ)
    run_with(texts_audit(tmp_path, models, neighbors=None, references=None), "local")
    assert signal.getsignal(signal.SIGTERM) is handler
    assert torch.get_num_threads() == threads
    assert dict(os.environ) == environment


def test_no_more_threads_compute_than_the_process_was_given(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    run_stream = here.run_stream

    def seen(*args: Any, **kwargs: Any) -> dict[str, str]:
        asked.append(torch.get_num_threads())
        return run_stream(*args, **kwargs)

    monkeypatch.setattr(here, "run_stream", seen)
    torch.set_num_threads(1)
    run_with(texts_audit(tmp_path, models, neighbors=None, references=None), "local")
    assert asked == [1]
    executor = here.LocalExecutor(ResourcesSpec(), str(tmp_path / "store"), console())
    assert executor.call([torch.get_num_threads], PoolSpec()) == [1]
    assert executor.call([torch.get_num_threads], PoolSpec(cpus=2)) == [2]


# --------------------------------------------------------------------- kills and failures


def begun(file: Path) -> Program:
    """An audit in a process of its own, once it has stored answers of the target."""
    driver = Program(RAYMIA, "audit", file)
    deadline = time.monotonic() + 120
    while len(parts(file.parent / "store", "text.tokens")) < 3:
        assert not driver.has_ended, driver.stdout + driver.stderr
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return driver


def test_after_a_kill_only_what_is_missing_is_asked(
    tmp_path: Path, models: Models, of_texts: dict[str, Any]
) -> None:
    file = texts_audit(tmp_path, models, self_prompt=True)
    driver = begun(file)
    driver.send(signal.SIGKILL)
    driver.wait(30)
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left.isdisjoint({"report.html", "metrics.json", "scores.parquet"})
    answered = {kind: len(raw_rows(tmp_path / "store", kind)) for kind in KINDS}
    resumed, _ = run_with(file, "local")
    assert resumed.complete
    whole = of_texts["local"][1]
    assert sum(asked(resumed).values()) == sum(asked(whole).values()) - sum(answered.values())
    for kind in KINDS:
        rows = Counter(
            (file.parent.name, row["record_id"], row["neighbor"])
            for file in parts(tmp_path / "store", kind)
            for row in pq.read_table(file, columns=["record_id", "neighbor"]).to_pylist()
        )
        assert set(rows.values()) == {1}
    assert scores_by_row(tmp_path / "run") == scores_by_row(of_texts["local"][0] / "run")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_that_it_can_go_on(
    tmp_path: Path, models: Models, sent: signal.Signals
) -> None:
    texts = passages()
    file = write_small_audit(
        tmp_path, models, members=texts[:40], non_members=texts[40:80],
        resources={"engine": "local", "block_records": 1},
    )  # fmt: skip
    driver = begun(file)
    driver.send(sent)
    done = driver.wait(60)
    assert done.returncode == 128 + sent
    assert done.stderr.splitlines()[-1].startswith("stopped; what was done is stored")
    assert "Traceback" not in done.stdout + done.stderr
    assert read_status(str(tmp_path / "run")).ended
    with engine(ResourcesSpec(), "unused", console()):  # the folder is free again
        assert not Folder(str(tmp_path / "run")).exists("lease.json")


def test_a_target_that_fails_is_named_and_the_others_go_on(tmp_path: Path, models: Models) -> None:
    bad = tmp_path / "bad"
    reweigh(models.target, bad, lambda tensor: tensor * 0.9)
    config = json.loads((bad / "config.json").read_text())
    config |= {"auto_map": {"AutoModelForCausalLM": "refuses.Refuses"}}
    (bad / "config.json").write_text(json.dumps(config))
    (bad / "refuses.py").write_text(
        "from transformers import GPT2LMHeadModel\n"
        "class Refuses(GPT2LMHeadModel):\n"
        "    def __init__(self, config):\n"
        "        raise ValueError('not to be had')\n"
    )
    targets = [{"name": "bad", "model": str(bad), "trust_remote_code": True},
               {"name": "tuned", "model": str(models.target)}]  # fmt: skip
    result, printed = run_with(texts_audit(tmp_path, models, targets=targets), "local")
    cause = f"{bad}: cannot be loaded as a causal language model: not to be had"
    assert {one.name: one.reason for one in result.failed} == {"bad": cause}
    assert f"target:bad failed: {cause}".replace(" ", "") in "".join(printed.split())
    assert not result.complete
    assert asked(result)["target:tuned"] == 2 * EACH * (2 + NEIGHBORS)
    assert {target for target, _, _ in scores_by_row(tmp_path / "run")} == {"tuned"}
    # What targets share ends the run.
    other = texts_audit(
        tmp_path / "shared", models, references={"base": {"model": str(bad),
        "trust_remote_code": True}}, neighbors=None,
    )  # fmt: skip
    with pytest.raises(RaymiaError, match="not to be had"):
        run_with(other, "local")


def test_what_goes_wrong_in_a_worker_is_one_readable_message() -> None:
    def fails() -> None:
        raise OSError(28, "No space left on device")

    with (
        engine(ResourcesSpec(engine="local"), "unused", console()) as start,
        pytest.raises(RaymiaError, match=r"^a worker failed: OSError: .*No space left on device$"),
    ):
        start().call([fails], PoolSpec())


@pytest.mark.parametrize(
    ("there", "gpus", "why"),
    [(False, 1, r"target.gpus: 1, and torch sees no GPU here"),
     (True, 0, r"target.gpus: 0, and with the local engine models are put on the GPU")],
)  # fmt: skip
def test_a_device_other_than_the_audit_file_says_is_refused(
    tmp_path: Path, models: Models, monkeypatch: pytest.MonkeyPatch, there: bool, gpus: int,
    why: str,
) -> None:  # fmt: skip
    file = texts_audit(
        tmp_path, models, neighbors=None, references={"base": {"model": str(BASE)}},
        resources={**LOCAL, "target": {"gpus": gpus}, "reference": {"gpus": gpus}},
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    with pytest.raises(InputError, match=why) as caught:
        run_with(file, "local")
    assert len(caught.value.problems) == 2
    assert here.__name__.startswith("raymia.engine.here")
