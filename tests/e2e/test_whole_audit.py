"""One audit after the other on the same folder: run, run again, more targets, more records."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pyarrow.parquet as pq
import pytest
from command_line import raymia
from small_audit import (
    ALL_ATTACKS,
    BASE,
    NEIGHBORS,
    Models,
    console,
    passages,
    raw_rows,
    scores_by_row,
    write_small_audit,
    write_texts,
)

from raymia.engine import base as engine_base
from raymia.metrics.summary import AttackMetrics
from raymia.questions.text import NOT_FINITE
from raymia.results.folder import load_run
from raymia.results.result import RunResult
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

ROOT = Path(__file__).parents[2]
RECORDS = 24
LEARNED = "learned_combination"  # needs more records than these
MODELS_OF_ONE_TARGET = 3  # target, base, self-prompt reference


@dataclass(frozen=True)
class Done:
    folder: Path
    file: Path
    result: RunResult


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Done:
    """The whole audit, with the base and a self-prompt reference."""
    folder = tmp_path_factory.mktemp("first")
    file = write_small_audit(folder, models, self_prompt=True)
    return Done(folder, file, run_audit(load_spec(file), console()))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this run should not ask any model")

    monkeypatch.setattr(engine_base, "executor_of", refuse)


def asked(result: RunResult) -> dict[str, int]:
    return {stage.name: stage.asked for stage in result.stages}


def test_first_run_asks_everything_once_and_is_complete(first: Done) -> None:
    result = first.result
    assert result.complete
    assert result.problems == []
    assert asked(result) == {
        "neighbors": RECORDS * NEIGHBORS,
        "target:tuned": RECORDS * (2 + NEIGHBORS),  # and in lower case
        "reference:base": RECORDS * (1 + NEIGHBORS),
        "reference:self_prompt:tuned": RECORDS * (1 + NEIGHBORS),
    }
    assert all(stage.stored == 0 for stage in result.stages)
    assert result.dropped_total == 0
    store = first.folder / "store"
    assert len(raw_rows(store, "text.tokens")) == RECORDS * MODELS_OF_ONE_TARGET
    assert len(raw_rows(store, "text.neighbors")) == RECORDS * NEIGHBORS * MODELS_OF_ONE_TARGET


def test_every_attack_scores_every_record_once(first: Done) -> None:
    scores = scores_by_row(first.folder / "run")
    assert {attack for _, attack, _ in scores} == {*ALL_ATTACKS, LEARNED}
    assert len(scores) == RECORDS * (len(ALL_ATTACKS) + 1)
    assert all(
        score is not None and math.isfinite(score)
        for (_, attack, _), score in scores.items()
        if attack != LEARNED
    )
    assert {entry.attack for entry in first.result.metrics} == {*ALL_ATTACKS, LEARNED}


def test_the_run_folder_has_report_metrics_and_scores(first: Done) -> None:
    run = first.folder / "run"
    assert {p.name for p in run.iterdir()} == {
        "report.html", "metrics.json", "scores.parquet", "curves.parquet", "events",
    }  # fmt: skip
    assert not list((first.folder / "store" / "scores").iterdir())
    assert "spv@self_prompt" in (run / "report.html").read_text(encoding="utf-8")
    assert json.loads((run / "metrics.json").read_text())["complete"] is True
    assert load_run(str(run))[0] == first.result


def test_the_metrics_follow_the_published_schema(first: Done) -> None:
    content = json.loads((first.folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    schema = json.loads((ROOT / "docs" / "metrics.schema.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(content)
    for wrong in ({"seed": "seven"}, {"surprise": 1}, {"metrics": [{"kind": "guessed"}]}):
        assert not validator.is_valid(content | wrong)


def test_conditions_on_a_stored_audit_decide_what_it_exits_with(first: Done) -> None:
    file = first.file.with_name("gated.yaml")
    gated = first.file.read_text().replace("output: run", "output: gated")
    file.write_text(gated + "fail_if: ['members < 3']\n")
    given = {
        0: [],
        6: ["--fail-if", "zlib.auc > 0.999"],  # so few records do not rule it out
        4: ["--fail-if", "members < 1000"],
    }
    for code, more in given.items():
        done = raymia("audit", file, *more)
        assert done.returncode == code, done.stderr
        assert "asked the models 0 questions" in done.stdout
        document = ElementTree.parse(first.folder / "gated" / "junit.xml").getroot()
        assert (document.get("tests"), document.get("failures")) == (
            ("1", "0") if code == 0 else ("2", "1")
        )
    result, _ = load_run(str(first.folder / "gated"))
    assert [outcome.status for outcome in result.gate] == ["passed", "failed"]


def test_the_self_prompt_reference_says_how_good_it_is(first: Done) -> None:
    card = next(card for card in first.result.references if card.name == "self_prompt")
    assert card.facts["texts"] == 15  # of 16, one is held out
    assert 0 < float(card.facts["held_out_loss"]) < 10


def test_a_target_that_was_tuned_on_the_members_gives_them_away(first: Done) -> None:
    auc = {
        entry.attack: entry.auc.value
        for entry in first.result.metrics
        if isinstance(entry, AttackMetrics)
    }
    assert auc["difference@base"] > 0.8


@pytest.mark.usefixtures("no_model")
def test_the_second_run_asks_nothing_and_gives_the_same_scores(first: Done) -> None:
    before = scores_by_row(first.folder / "run")
    started = time.monotonic()
    again = run_audit(load_spec(first.file), console())
    assert time.monotonic() - started < 20
    assert set(asked(again).values()) == {0}
    assert [stage.stored for stage in again.stages] == [
        stage.asked for stage in first.result.stages
    ]
    assert scores_by_row(first.folder / "run") == before
    assert again.metrics == first.result.metrics


def test_two_targets_share_neighbors_and_base_and_a_broken_one_stops_nothing(
    tmp_path: Path, models: Models
) -> None:
    texts = passages()
    names = {"tuned": models.target, "other": models.other, "broken": models.broken}
    file = write_small_audit(
        tmp_path, models, members=texts[:4], non_members=texts[24:28],
        targets=[{"name": name, "model": str(path)} for name, path in names.items()],
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    each = 8 * (2 + NEIGHBORS)
    assert asked(result) == {
        "neighbors": 8 * NEIGHBORS,
        "reference:base": 8 * (1 + NEIGHBORS),
        "target:tuned": each,
        "target:other": each,
        "target:broken": each,
    }
    assert len(raw_rows(tmp_path / "store", "neighbors.mask_fill")) == 8 * NEIGHBORS

    assert result.complete
    assert result.dropped_total == each
    ids = {row["record_id"] for row in pq.read_table(tmp_path / "run/scores.parquet").to_pylist()}
    for drop in result.dropped:
        assert (drop.stage, drop.reason) == ("target:broken", NOT_FINITE)
    assert {drop.record_id for drop in result.dropped} == ids
    failed = {stage.name: stage.failed for stage in result.stages}
    assert failed == dict.fromkeys(failed, 0) | {"target:broken": each}

    scores = scores_by_row(tmp_path / "run")
    for attack in {attack for _, attack, _ in scores} - {LEARNED}:
        for record in ids:
            tuned, other = (scores[name, attack, record] for name in ("tuned", "other"))
            assert tuned is not None
            assert other is not None
            assert scores["broken", attack, record] is None
    assert any(scores["tuned", "loss", record] != scores["other", "loss", record] for record in ids)
    measured = {(m.target, m.kind) for m in result.metrics if m.attack != LEARNED}
    assert measured == {
        ("tuned", "measured"), ("other", "measured"), ("broken", "not_measured"),
    }  # fmt: skip


def test_more_records_ask_only_about_the_new_ones(first: Done, models: Models) -> None:
    texts = passages()
    members = first.folder / "more.jsonl"
    write_texts(members, [*texts[:12], *texts[12:16]])
    candidates = first.folder / "candidates.jsonl"
    write_texts(candidates, texts[40:44])
    file = write_small_audit(
        first.folder, models, output="more", references={"base": {"model": str(BASE)}},
        records={"members": members.name, "non_members": "non_members.jsonl",
                 "candidates": candidates.name},
    )  # fmt: skip
    try:
        result = run_audit(load_spec(file), console())
    finally:
        write_small_audit(first.folder, models, self_prompt=True)
    assert asked(result) == {
        "neighbors": 8 * NEIGHBORS,
        "target:tuned": 8 * (2 + NEIGHBORS),
        "reference:base": 8 * (1 + NEIGHBORS),
    }
    assert result.records.candidates == 4
    before, after = scores_by_row(first.folder / "run"), scores_by_row(first.folder / "more")
    assert all(
        after[row] == score for row, score in before.items() if row in after and row[1] != LEARNED
    )
    without_reference = {a for a in {*ALL_ATTACKS, LEARNED} if "@self_prompt" not in a}
    assert len(after) == (RECORDS + 8) * len(without_reference)


def test_candidates_alone_are_scored_and_not_measured(tmp_path: Path, models: Models) -> None:
    write_texts(tmp_path / "candidates.jsonl", passages()[:6])
    file = write_small_audit(
        tmp_path, models, records={"candidates": "candidates.jsonl"},
        references=None, neighbors=None,
    )  # fmt: skip
    result = run_audit(load_spec(file), console())
    assert result.complete
    assert result.metrics == []
    assert (tmp_path / "run" / "report.html").is_file()
    rows = pq.read_table(tmp_path / "run" / "scores.parquet").to_pylist()
    assert len(rows) == 6 * len({row["attack"] for row in rows})
    assert all(row["is_member"] is None and row["score"] is not None for row in rows)
