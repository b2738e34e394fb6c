"""`raymia store`: what a person reads, and what is deleted only on demand."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from small_inputs import answer, audit
from small_sweep import SWEEP, with_evidence, write_sweep_audit
from tiny_models import PARAPHRASER
from typer.testing import CliRunner

from raymia.cli.main import app
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.questions.text import SUM_SCHEMA
from raymia.run.sweep import swept_rates
from raymia.spec.file import load_spec
from raymia.storage.files import Folder
from raymia.sweep.record import Tried

OTHER = EvidenceKey("text.neighbors", {"model": "gone", "version": 1})


@pytest.fixture
def made(tmp_path, tiny_gpt2):
    """An audit file whose store has every answer, and an old key that nobody needs."""
    base = {"model": str(tiny_gpt2), "max_tokens": 64}
    spec = audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, references={"base": base})
    file = tmp_path / "audit.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    store = EvidenceStore(spec.store)
    for plan in plan_audit(resolve_inputs(spec), store):
        for stage in plan.stages:
            for planned in stage.questions:
                answer(store, planned)
    row = {"record_id": "a", "neighbor": 1, "log_prob_sum": -1.0, "token_count": 3}
    store.commit(OTHER, pa.Table.from_pylist([row], schema=SUM_SCHEMA))
    for path in Path(spec.store).rglob("*"):
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    return file, spec


def run(*arguments):
    return CliRunner().invoke(
        app, ["store", *map(str, arguments)], env={"COLUMNS": "300", "TERM": "dumb"}
    )


def test_ls_says_what_each_key_is_needed_for(made):
    file, spec = made
    out = run("ls", spec.store, file).output
    (mine,) = (line for line in out.splitlines() if OTHER.hash in line)
    assert mine.rstrip(" │").endswith("-")
    assert "neighbors.mask_fill" in out
    assert sum("target:one" in line for line in out.splitlines()) == 3
    assert sum("reference:base" in line for line in out.splitlines()) == 2
    assert "7 keys, " in out


def test_verify_finds_a_whole_store_whole_and_a_damaged_file(made):
    _, spec = made
    for path in Path(spec.store).glob("evidence/neighbors.mask_fill/*/*.parquet"):
        path.write_bytes(path.read_bytes()[:50])
        damaged = path
    result = run("verify", spec.store)
    assert result.exit_code == 1
    assert f"{damaged.name}: damaged evidence file" in result.output
    assert ": 1 problems" in result.output
    damaged.unlink()
    assert run("verify", spec.store).exit_code == 0


def test_gc_says_what_it_would_delete_and_deletes_when_told(made):
    file, spec = made
    there = Path(spec.store) / OTHER.folder
    said = run("gc", spec.store, file)
    assert said.exit_code == 0, said.output
    assert f"would delete: {OTHER.folder} " in said.output
    assert said.output.count("would delete") == 1
    assert there.exists()
    assert "would be freed" in said.output
    done = run("gc", spec.store, file, "--delete")
    assert f"deleted: {OTHER.folder} " in done.output
    assert not there.exists()
    assert not plan_audit(resolve_inputs(spec), EvidenceStore(spec.store)).is_missing_anything


@pytest.mark.long
def test_gc_keeps_rates_and_what_a_sweep_asks_and_has_tried(tmp_path):
    queries = {"neighbors.share": {"grid": [0.1, 0.2]}}
    file = write_sweep_audit(tmp_path, {**SWEEP, "queries": queries})
    spec = load_spec(file)
    plan = with_evidence(spec)
    tried = Tried(spec.store, plan.halves, swept_rates(spec)).place
    folder = Folder(spec.store)
    for name in (f"{tried}/a.json", "sweeps/of-old-code/b.json", "rates/c.json", "rates/d.json"):
        folder.write(name, b"[]")
    for path in Path(spec.store).rglob("*"):
        os.utime(path, (time.time() - 2 * 86_400,) * 2)
    listed = run("ls", spec.store, file).output.splitlines()
    (rates,) = (line for line in listed if " rates " in line)
    assert rates.split("│")[5].strip() == "2"
    assert sum(" sweeps/" in line for line in listed) == 2
    said = run("gc", spec.store, file).output
    assert [line for line in said.splitlines() if line.startswith("would")] == [
        "would delete: sweeps/of-old-code (2 B): no given audit needs it"
    ]


def test_gc_without_audit_files_deletes_no_evidence(made):
    _, spec = made
    assert "deleted" not in run("gc", spec.store, "--delete").output
    assert (Path(spec.store) / OTHER.folder).exists()


def test_an_audit_of_another_store_is_refused(made, tmp_path):
    file, spec = made
    content = yaml.safe_load(file.read_text()) | {"store": str(tmp_path / "elsewhere")}
    file.write_text(yaml.safe_dump(content))
    result = run("gc", spec.store, file, "--delete")
    assert "its store is" in str(result.exception)
    assert (Path(spec.store) / OTHER.folder).exists()


@pytest.mark.long
def test_compact_leaves_one_part_where_there_were_many(made):
    _, spec = made
    store = EvidenceStore(spec.store)
    row = {"neighbor": 1, "log_prob_sum": -1.0, "token_count": 3}
    for n in range(80):
        store.commit(OTHER, pa.Table.from_pylist([{"record_id": f"{n}", **row}], schema=SUM_SCHEMA))
    assert f"{OTHER.folder}: 80 files fewer" in run("compact", spec.store).output
    assert store.read(OTHER, columns=[]).num_rows == 81
