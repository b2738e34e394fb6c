"""A kind of records that comes from elsewhere is audited as texts and images are."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import pytest
from number_modality import NumberEvidence, Numbers
from rich.console import Console

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.estimate import estimate
from raymia.plan.planning import plan_audit
from raymia.plan.stages import TargetPlan
from raymia.questions.base import Item
from raymia.report.plan_table import plan_table
from raymia.run.audit import run_audit
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

MEMBERS, OTHERS = [5.0 + 0.01 * n for n in range(30)], [7.0 + 0.01 * n for n in range(30)]


def write(folder: Path, **changes: object) -> AuditSpec:
    for name, numbers in (("members", MEMBERS), ("others", OTHERS)):
        lines = "".join(f"{json.dumps({'number': number})}\n" for number in numbers)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "center.json").write_text("5.0", encoding="utf-8")
    records = {"kind": "number", "members": "members.jsonl", "non_members": "others.jsonl"}
    content = {
        "records": records,
        "targets": [{"name": "one", "model": "./center.json"}],
        "attacks": ["near"],
        "output": "run",
        "store": "store",
        **changes,
    }
    file = folder / "audit.yaml"
    file.write_text(json.dumps(content), encoding="utf-8")
    return load_spec(file)


def ask(inputs: Inputs, store: EvidenceStore) -> list[TargetPlan]:
    """Ask everything that is missing, in this process."""
    payloads = dict(zip(*(column.to_pylist() for column in inputs.payloads), strict=True))
    for stage in (stage for plan in plan_audit(inputs, store) for stage in plan.stages):
        model = stage.loader.load()
        for one in stage.probes:
            items = [Item(record, index, payloads[record]) for record, index in one.missing.pairs()]
            store.commit(one.key, one.probe.ask(model, items))
    return plan_audit(inputs, store)


def test_its_records_are_read_and_its_models_found(tmp_path: Path) -> None:
    inputs = resolve_inputs(write(tmp_path))
    assert isinstance(inputs.modality, Numbers)
    assert inputs.records.table["payload"].to_pylist() == MEMBERS + OTHERS
    assert [named.label for named in inputs.attacks] == ["near"]
    assert pickle.loads(pickle.dumps(inputs.modality)) == inputs.modality


def test_its_audit_is_planned_asked_scored_and_reported(tmp_path: Path) -> None:
    spec = write(tmp_path)
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    plans = plan_audit(inputs, store)
    assert [plan.to_ask for plan in plans] == [60]
    console = Console(file=io.StringIO(), width=200)
    console.print(plan_table(inputs, plans, estimate(inputs, plans, store)))
    assert isinstance(console.file, io.StringIO)
    assert "numbers to look at" in console.file.getvalue()
    assert [plan.to_ask for plan in ask(inputs, store)] == [0]
    result = run_audit(spec, console)
    (metrics,) = result.metrics
    assert result.complete
    assert (metrics.attack, metrics.auc.value) == ("near", 1.0)
    assert result.shift is not None
    assert "near" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_its_attacks_see_its_own_evidence(tmp_path: Path) -> None:
    inputs, store = resolve_inputs(write(tmp_path)), EvidenceStore(str(tmp_path / "store"))
    (plan,) = ask(inputs, store)
    given = inputs.modality.evidence_on(inputs, store, plan).given_to(inputs.attacks[0], {})
    assert isinstance(given, NumberEvidence)
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
        ({"attacks": ["near", "min_k"]}, "no attack 'min_k'"),
    ],
)
def test_what_belongs_to_other_records_is_refused(
    tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        resolve_inputs(write(tmp_path, **change))
