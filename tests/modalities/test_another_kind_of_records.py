"""A kind of records that comes from elsewhere is audited as texts and images are."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from forks import programs
from rich.console import Console
from small_numbers import MEMBERS, OTHERS, write_number_audit

from raymia.cli.main import plan
from raymia.cli.train import train, train_shadows
from raymia.evidence.store import EvidenceStore
from raymia.metrics.summary import AttackMetrics
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.estimate import estimate
from raymia.plan.planning import plan_audit
from raymia.report.plan_table import plan_table
from raymia.run.audit import run_audit
from raymia.spec import AuditSpec, PoolSpec
from raymia.spec.file import load_spec
from raymia.spec.records import RECORDS
from raymia.util import plugins
from raymia.util.errors import InputError

JOB = Path(__file__).parents[2] / "jobs" / "prepare.py"
PLUGIN = Path(__file__).parents[1] / "support" / "number_modality.py"


@pytest.fixture(scope="module", autouse=True)
def numbers() -> Iterator[ModuleType]:
    """The kind of records, which nothing knows before or after these tests."""
    plugin = plugins.load_plugins([str(PLUGIN)])[-1]
    yield sys.modules[plugin.module]
    plugins._forget(plugin.module)
    assert "number" not in RECORDS.tags


def write(folder: Path, **changes: object) -> AuditSpec:
    return load_spec(write_number_audit(folder, **changes))


def test_its_records_are_read_and_its_models_found(tmp_path: Path, numbers: ModuleType) -> None:
    inputs = resolve_inputs(write(tmp_path))
    assert isinstance(inputs.modality, numbers.Numbers)
    assert inputs.records.table["payload"].to_pylist() == MEMBERS + OTHERS
    assert [named.label for named in inputs.attacks] == ["near"]
    assert pickle.loads(pickle.dumps(inputs.modality)) == inputs.modality


@pytest.mark.long
def test_its_audit_is_planned_asked_scored_and_reported(tmp_path: Path) -> None:
    spec = write(
        tmp_path,
        references={"averaged": {"kind": "averaged", "numbers": 20}},
        attacks=["near", "learned_combination"],
    )
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    plans = plan_audit(inputs, store)
    assert [plan.to_ask for plan in plans] == [120]
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_table(inputs, plans, estimate(inputs, plans, store)))
    assert isinstance(console.file, io.StringIO)
    for says in ("numbers to look at", "20 numbers are drawn around one"):
        assert says in console.file.getvalue()
    result = run_audit(spec, console)
    assert result.complete
    aucs = {m.attack: m.auc.value for m in result.metrics if isinstance(m, AttackMetrics)}
    assert aucs.keys() == {"near", "near@averaged", "learned_combination"}
    assert aucs["near"] == 1.0
    assert [plan.to_ask for plan in plan_audit(inputs, store)] == [0]
    assert result.shift is not None
    assert "near@averaged" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_it_has_sections_of_its_own(tmp_path: Path) -> None:
    spec = write(tmp_path, neighbors={"kind": "rounded", "digits": 2})
    assert spec.neighbors is not None
    assert spec.neighbors.model_dump() == {"kind": "rounded", "digits": 2}
    with pytest.raises(InputError, match=r"neighbors\.digit: unknown key; did you mean 'digits'"):
        write(tmp_path, neighbors={"kind": "rounded", "digit": 2})


def test_it_has_targets_and_trainings_of_its_own(tmp_path: Path) -> None:
    target = {"name": "one", "center": "./center.json"}
    inputs = resolve_inputs(write(tmp_path, targets=[target], training={"digits": 1}))
    assert isinstance(inputs.targets["one"].loader(PoolSpec()).load(), float)
    assert [*dict.fromkeys(inputs.records.table["payload"].to_pylist())] == [
        5.0, 5.1, 5.2, 5.3, 7.0, 7.1, 7.2, 7.3,
    ]  # fmt: skip
    of_one = {"name": "one", "model": "./center.json", "training": {"digit": 1}}
    for wrong, place in (({"training": {"digit": 1}}, ""), ({"targets": [of_one]}, "targets[0].")):
        with pytest.raises(InputError, match="unknown key; did you mean 'digits'") as refused:
            write(tmp_path, **wrong)
        assert f" {place}training.digit: " in str(refused.value)


def write_training(folder: Path) -> Path:
    write_number_audit(folder)
    records = {"kind": "number", "members": "members.jsonl", "held_out": "others.jsonl"}
    content = {"output": "out", "base": "center.json", "records": records}
    (folder / "training.yaml").write_text(json.dumps(content), encoding="utf-8")
    return folder / "training.yaml"


def test_its_models_are_planned_trained_and_audited_by_their_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_training(tmp_path)
    plan(file)
    assert "the mean of the members" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    train(file)
    assert "center.json" in capsys.readouterr().out
    manifest = tmp_path / "out" / "manifest.json"
    inputs = resolve_inputs(load_spec(manifest))
    assert {"near", "learned_combination"} == {named.label for named in inputs.attacks}
    (target,) = inputs.targets.values()
    assert target.loader(PoolSpec()).load() == pytest.approx(np.mean(MEMBERS))
    with pytest.raises(InputError, match="no shadows are trained on numbers"):
        train_shadows(file)
    with pytest.raises(InputError, match="it is of a training of numbers"):
        train_shadows(manifest, count=2)
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("target", "another"))
    with pytest.raises(InputError, match="was edited after the training"):
        load_spec(manifest)


def test_records_on_which_no_model_is_trained_are_refused(
    tmp_path: Path, numbers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers.NumberRecordsSpec, "training_file", None)
    with pytest.raises(InputError, match="kind: no model is trained on numbers") as refused:
        train(write_training(tmp_path))
    assert "there are trainings on records of kind image, text" in str(refused.value)


@pytest.mark.long
def test_it_comes_from_a_plugin_of_the_audit_file(tmp_path: Path) -> None:
    write(tmp_path, plugins=[str(PLUGIN)])
    for command in ("plan", "attacks"):
        named = "audit.yaml" if command == "plan" else f"--plugin={PLUGIN}"
        found = programs.raymia(command, named, folder=tmp_path)
        assert found.returncode == 0, found.stderr
        assert ("numbers to look at" if command == "plan" else "near[@REF]") in found.stdout


@pytest.mark.long
def test_its_trainings_come_from_a_plugin_of_the_command_line(tmp_path: Path) -> None:
    write_training(tmp_path)
    for command, named in (("plan", "training.yaml"), ("train", "training.yaml"),
                           ("plan", "out/manifest.json")):  # fmt: skip
        found = programs.raymia(command, named, f"--plugin={PLUGIN}", folder=tmp_path)
        assert found.returncode == 0, found.stderr
    assert "learned_combination, near\n" in found.stdout


@pytest.mark.long
def test_a_job_takes_the_plugin_as_its_command_does(tmp_path: Path) -> None:
    write(tmp_path, references={"averaged": {"kind": "averaged"}}, attacks=["near@averaged"])
    job = f"import runpy; runpy.run_path({str(JOB)!r}, run_name='__main__')"
    found = programs.run(job, "audit.yaml", f"--plugin={PLUGIN}", "--engine=local", folder=tmp_path)
    assert found.returncode == 0, found.stderr
    sums = json.loads(found.stdout.splitlines()[-1])
    assert (sums["ready"], sums["missing"], sums["problems"]) == (1, 0, [])


@pytest.mark.parametrize(
    ("old", "new"),
    [('kind: Literal["number"]', 'kind: Literal["image"]'),
     ('kind: Literal["averaged"]', 'kind: Literal["self_prompt"]'),
     ("RoundedTraining", "ImageTrainingSpec")],
)  # fmt: skip
def test_a_section_that_is_called_as_another_is_refused_and_leaves_nothing(
    tmp_path: Path, old: str, new: str
) -> None:
    source = PLUGIN.read_text(encoding="utf-8")
    source = source.replace('"number"', '"cipher"').replace('"near"', '"close"')
    source = source.replace(old.replace("number", "cipher"), new)
    (tmp_path / "again.py").write_text(source, encoding="utf-8")
    with pytest.raises(InputError, match="in audit files, as another is; rename it"):
        plugins.load_plugins([str(tmp_path / "again.py")])
    assert "cipher" not in RECORDS.tags
    assert write(tmp_path, training={"digits": 1}).records.kind == "number"


def test_its_attacks_see_its_own_evidence(tmp_path: Path, numbers: ModuleType) -> None:
    spec = write(tmp_path)
    run_audit(spec, Console(file=io.StringIO()))
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    (plan,) = plan_audit(inputs, store)
    given = inputs.modality.evidence_on(inputs, store, plan).given_to(inputs.attacks[0], {})
    assert isinstance(given, numbers.NumberEvidence)
    assert given.target.distance[:2] == pytest.approx([0.0, 0.01])


def test_what_is_wrong_with_it_is_said_together(tmp_path: Path) -> None:
    targets = [{"name": "one", "model": "./nothing.json"}]
    with pytest.raises(InputError) as refused:
        resolve_inputs(write(tmp_path, targets=targets, records={"kind": "number", "members": "x"}))
    assert len(refused.value.problems) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corpus": {"files": "c.jsonl"}}, "corpus is for texts, and the records are numbers"),
        ({"neighbors": {"kind": "substitute"}}, "neighbors of kind substitute are none of numbers"),
        ({"records": {"kind": "number", "members": "m", "text_column": "t"}}, "number_column"),
        (
            {"records": {"members": "m"}, "targets": [{"name": "one", "center": "c"}]},
            "a center is one of numbers, and the records are texts",
        ),
        ({"attacks": ["near", "min_k"]}, "no attack 'min_k'"),
    ],
)
def test_what_belongs_to_other_records_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        resolve_inputs(write(tmp_path, **change))
