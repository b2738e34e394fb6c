"""Whole sweeps: made-up evidence is asked of no model, small models once."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores
from made_up_sweep import result, row
from scripts import load_script
from small_audit import BASE, console, passages, raw_rows, write_texts
from small_sweep import SWEEP, made_spec, with_evidence, write_sweep_audit
from typer.testing import CliRunner

import raymia
import raymia.engine.base
import raymia.run.sweep
from raymia.cli.main import app
from raymia.evidence.store import EvidenceStore
from raymia.report.files import write_run
from raymia.results.disguise import Disguise
from raymia.run.audit import run_audit
from raymia.run.sweep import run_sweep
from raymia.scoring.reduction import score_target
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec
from raymia.sweep.plan import plan_sweep
from raymia.sweep.result import redact_sweep, sweep_table
from raymia.sweep.space import check_sweep
from raymia.util.reasons import CAME


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this sweep should not ask any model")

    monkeypatch.setattr(raymia.run.sweep, "ask", refuse)


@pytest.fixture
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("this sweep should not try anything")

    monkeypatch.setattr(raymia.engine.base, "executor_of", refuse)


def rows_of(spec: AuditSpec) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(f"{spec.output}/sweep.parquet").to_pylist()
    return rows


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A sweep over made-up evidence, run once."""
    spec = made_spec(tmp_path_factory.mktemp("swept"), SWEEP)
    with_evidence(spec)
    return spec, run_sweep(spec, console())


@pytest.mark.long
def test_every_setting_is_tried_once_and_no_model_is_asked(swept: Any) -> None:
    spec, result = swept
    assert result.asked == 0
    assert result.settings == result.tried_now == 15
    assert result.problems == []
    rows = rows_of(spec)
    counts = Counter((row["attack"], row["reference"]) for row in rows)
    assert counts == {("min_k", None): 3, ("spv", "base"): 6, ("spv", "other"): 6}
    spv = {(row["reference"], row["parameter.space"], row["query.neighbors.count"])
           for row in rows if row["attack"] == "spv"}  # fmt: skip
    assert spv == {(r, s, n) for r in ("base", "other") for s in ("log", "probability")
                   for n in (1, 2, 4)}  # fmt: skip
    assert {row["query.neighbors.count"] for row in rows if row["attack"] == "min_k"} == {None}


def test_a_setting_achieves_what_an_audit_with_it_does(swept: Any) -> None:
    """The row's AUC is that of the scores of an ordinary audit, on the half."""
    from sklearn.metrics import roc_auc_score

    spec, _ = swept
    plan = plan_sweep(check_sweep(spec), EvidenceStore(spec.store))
    row = next(r for r in rows_of(spec) if r["reference"] == "other"
               and r["parameter.space"] == "log" and r["query.neighbors.count"] == 2)  # fmt: skip
    neighbors = spec.neighbors.model_copy(update={"count": 2})
    attacks = [{"attack": "spv@other", "parameters": {"space": "log"}}]
    audit = AuditSpec.model_validate({**spec.model_dump(exclude={"sweep", "targets"}),
                                      "targets": spec.targets, "attacks": attacks})  # fmt: skip
    audit = audit.model_copy(update={"neighbors": neighbors})
    from raymia.modalities.resolve import resolve_inputs
    from raymia.plan.planning import plan_audit

    inputs, store = resolve_inputs(audit), EvidenceStore(spec.store)
    (scores,) = score_target(inputs, store, plan_audit(inputs, store)[0]).values()
    for half in ("calibration", "evaluation"):
        chosen = getattr(plan.halves, half)
        expected = roc_auc_score(plan.halves.is_member[chosen], scores[chosen])
        assert row[f"{half}.auc"] == pytest.approx(expected)


@pytest.mark.usefixtures("no_models", "no_trials")
def test_again_nothing_is_tried_and_all_is_the_same(swept: Any) -> None:
    spec, result = swept
    before = rows_of(spec)
    again = run_sweep(spec, console())
    assert again.tried_now == 0
    assert again.winners == result.winners
    assert rows_of(spec) == before


@pytest.mark.usefixtures("no_models")
def test_one_more_value_is_all_that_is_tried(swept: Any) -> None:
    spec, _ = swept
    more = {**SWEEP, "attacks": {**SWEEP["attacks"], "min_k": {"share": {"grid": [0.1, 0.3, 0.7,
            0.9]}}}}  # fmt: skip
    wider = load_spec(write_sweep_audit(Path(spec.store).parent, more, output="wider"))
    assert run_sweep(wider, console()).tried_now == 1


@pytest.mark.usefixtures("no_models", "no_trials")
def test_a_report_in_the_folder_points_to_the_page_of_the_sweep(swept: Any) -> None:
    spec, _ = swept
    folder = spec.model_copy(update={"output": f"{spec.output}-with-report"})
    scores = made_up_scores()
    write_run(folder.output, made_up_result(scores), [scores], made_up_curves(scores))
    report = Path(folder.output, "report.html")
    assert 'href="sweep.html"' not in report.read_text()
    run_sweep(folder, console())
    assert 'href="sweep.html"' in report.read_text()


@pytest.mark.usefixtures("no_models", "no_trials")
def test_a_redacted_report_points_to_a_redacted_sweep_alone(
    swept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = f"OSError: /clinic/surgery/x.safetensors: gone{CAME}surgery"
    monkeypatch.setattr(raymia.run.sweep, "_problems", lambda _: [f"target one failed: {why}"])
    spec = swept[0].model_copy(update={"output": str(tmp_path)})
    scores = made_up_scores()
    write_run(spec.output, made_up_result(scores), [scores], made_up_curves(scores))
    run_sweep(spec, console())

    def those_that(word: str) -> set[str]:
        return {file.name for file in tmp_path.glob("*.*") if word.encode() in file.read_bytes()}

    assert those_that("surgery") == {"sweep.html", "sweep.json"}
    done = CliRunner().invoke(app, ["report", spec.output, "--redact"])
    assert "not redacted: the files of the sweep" in done.output
    assert those_that('href="sweep.html"') == set()
    report = spec.report.model_copy(update={"redact": True})
    run_sweep(spec.model_copy(update={"report": report}), console())
    assert those_that("surgery") == set()
    assert those_that("target one failed: OSError: &lt;file ") == {"sweep.html"}
    assert those_that('href="sweep.html"') == {"report.html"}
    done = CliRunner().invoke(app, ["report", spec.output, "--redact"])
    assert done.exit_code == 0
    assert "not redacted" not in done.output


def test_a_sweep_that_is_redacted_names_no_file_in_its_settings() -> None:
    given = row(0.1, "log", 0.6, 0.5)
    problem = given.found.model_copy(update={"problem": f"no /clinic/x here{CAME}surgery"})
    given = replace(given, found=problem, queries={"neighbors.model": "/clinic/t5", "count": 5})
    made_up, (found,) = redact_sweep(result(), [given], Disguise(b"s"))
    table = sweep_table([found], made_up.rates, made_up.objective).to_pylist()[0]
    assert made_up.redacted
    assert table["query.count"] == 5
    assert table["query.neighbors.model"] == Disguise(b"s").path("/clinic/t5")
    assert table["problem"] == f"no {Disguise(b's').path('/clinic/x')} here"
    assert table["parameter.share"] == 0.1


def test_the_files_say_who_won_and_how_it_was_judged(swept: Any) -> None:
    spec, result = swept
    told = json.loads(Path(spec.output, "sweep.json").read_text())
    assert [(w["target"], w["attack"]) for w in told["winners"]] == [
        (w.target, w.attack) for w in result.winners
    ]
    for winner in result.winners:
        own = [r for r in rows_of(spec) if r["attack"] == winner.attack]
        assert winner.tried == len(own)
        best = max(own, key=lambda row: row["objective"])
        assert winner.calibration.auc.value == pytest.approx(best["objective"])
        assert winner.evaluation is not None
        assert winner.evaluation.auc.value == pytest.approx(best["evaluation.auc"])
    h = result.halves
    assert h.calibration_members + h.evaluation_members == 40
    assert h.calibration_non_members + h.evaluation_non_members == 40


@pytest.mark.long
@pytest.mark.usefixtures("no_models")
def test_optuna_proposes_the_same_settings_again_and_finds_better_ones(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    sweep = {
        "attacks": {"spv": {"space": {"choice": ["log", "probability"]}},
                    "surp": {"share": {"uniform": [0.05, 1.0]},
                             "max_entropy": {"loguniform": [0.2, 8]}}},
        "queries": {"neighbors.count": {"grid": [1, 4]}},
        "search": "optuna", "samples": 12, "seed": 1,
    }  # fmt: skip
    spec = made_spec(tmp_path, sweep)
    with_evidence(spec)
    result = run_sweep(spec, console())
    rows = rows_of(spec)
    counts = Counter(row["attack"] for row in rows)
    assert counts["surp"] == 12
    assert 1 < counts["spv"] <= 8  # two spaces, two references, two counts
    assert result.tried_now == result.settings == len(rows)
    again = run_sweep(spec, console())
    assert again.tried_now == 0
    assert rows_of(spec) == rows
    shares = [row["parameter.share"] for row in rows if row["attack"] == "surp"]
    assert len(set(shares)) == 12
    assert all(0.05 <= share <= 1 for share in shares)


@pytest.mark.long
@pytest.mark.usefixtures("no_models")
def test_commands_plan_and_show_a_sweep(swept: Any) -> None:
    from typer.testing import CliRunner

    spec, result = swept
    file = str(Path(spec.store).parent / "audit.yaml")
    write_sweep_audit(Path(file).parent, SWEEP)
    shown = CliRunner().invoke(app, ["plan", file], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert "15 settings of min_k, spv on 3 settings of the queries, by AUC" in " ".join(
        shown.output.split()
    )
    found = CliRunner().invoke(app, ["sweep", file], env={"COLUMNS": "80"})
    assert found.exit_code == 0, found.output
    assert "15 settings, 0 of them tried now; asked the models 0 questions" in found.output
    assert "optimism" in found.output
    for winner in result.winners:
        assert f"best setting of {winner.label}: " in found.output


@pytest.mark.usefixtures("no_models", "no_trials")
def test_a_job_sums_the_sweep_up_in_its_last_line(
    swept: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, result = swept
    script = load_script("jobs/sweep.py")
    file = write_sweep_audit(Path(spec.store).parent, SWEEP)
    assert script.main([str(file)]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["settings"], summary["tried_now"], summary["asked"]) == (15, 0, 0)
    assert [best["attack"] for best in summary["best"]] == [w.label for w in result.winners]
    assert summary["page"] == f"{spec.output}/sweep.html"
    write_sweep_audit(Path(spec.store).parent, {"attacks": {"min_kk": {}}})
    assert script.main([str(file)]) == 2
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["best"] is None
    assert "min_kk" in summary["problems"][0]


@pytest.mark.usefixtures("no_models", "local_ray")
def test_the_benchmark_tries_settings_without_a_question(tmp_path: Path) -> None:
    script = load_script("tools/benchmark.py")
    script.main(["--sweep", "--records", "600", "--settings", "40",
                 "--json", str(tmp_path / "speed.json")])  # fmt: skip
    found = json.loads((tmp_path / "speed.json").read_text())
    assert (found["settings"], found["records"], found["queries"]) == (40, 600, 0)
    assert all(seconds > 0 for name, seconds in found["seconds"].items() if name != "ray")


# ------------------------------------------------------------------------- real questions


@pytest.mark.long
def test_models_are_asked_once_for_what_settings_have_in_common(
    tmp_path: Path, tiny_gpt2: Path
) -> None:
    """Neighbors 1 to 3 are among 1 to 5; words that are swapped by another share are others."""
    texts = [" ".join(text.split()[:12]) for text in passages()[:56]]
    sweep = {
        "attacks": {"spv": {}},
        "queries": {
            "neighbors.count": {"grid": [3, 5]}, "neighbors.share": {"grid": [0.15, 0.5]},
        },
    }  # fmt: skip
    file = write_sweep_audit(
        tmp_path, sweep, targets=[{"name": "tuned", "model": str(tiny_gpt2)}],
        references={"base": {"model": str(BASE)}}, resources={"block_records": 64},
    )  # fmt: skip
    write_texts(tmp_path / "members.jsonl", texts[:28])
    write_texts(tmp_path / "non_members.jsonl", texts[28:])
    spec = load_spec(file)
    plan = plan_sweep(check_sweep(spec), EvidenceStore(spec.store))
    result = run_sweep(spec, console())
    records = len(texts)
    assert result.asked == records * (2 + 2 * 5 * 3)  # tokens once; neighbors made, and asked twice
    assert [query.asked for query in result.queries] == plan.to_ask
    for kind in ("text.tokens", "text.neighbors", "neighbors.substitute"):
        rows = Counter(
            (part.parent.name, row["record_id"], row["neighbor"])
            for part in (tmp_path / "store" / "evidence" / kind).glob("*/*.parquet")
            for row in pq.read_table(part, columns=["record_id", "neighbor"]).to_pylist()
        )
        assert set(rows.values()) == {1}
    assert len(raw_rows(tmp_path / "store", "text.neighbors")) == records * 2 * 2 * 5
    again = run_sweep(spec, console())
    assert (again.asked, again.tried_now) == (0, 0)
    # An audit with one of the settings finds everything stored.
    audit = run_audit(spec.model_copy(update={"sweep": None, "attacks": None, "neighbors":
        spec.neighbors.model_copy(update={"count": 5})}), console())  # fmt: skip
    asked = {stage.name: stage.asked for stage in audit.stages}
    assert asked["reference:base"] == 0
    assert asked["neighbors"] == 0
