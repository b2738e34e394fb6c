"""A whole audit whose models are asked in this process, without Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from small_inputs import audit
from tiny_models import PARAPHRASER

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.plan.stages import TargetPlan
from raymia.questions.base import Item
from raymia.results.result import RunResult
from raymia.run.outcome import Run, sum_up
from raymia.scoring.parts import ScoreParts
from raymia.scoring.reduction import reduce_audit
from raymia.scoring.workers import Here
from raymia.spec.file import load_spec


@dataclass(frozen=True)
class Answered:
    """A run whose models were asked in this process."""

    inputs: Inputs
    store: EvidenceStore
    plans: list[TargetPlan]
    scores: ScoreParts
    result: RunResult

    def rows(self, question: str, shadow: str = "") -> dict[tuple[str, int], dict[str, Any]]:
        """The answers of the first target, or of a shadow, to a question as they are stored."""
        plan = self.plans[0]
        stage = plan.references[shadow] if shadow else plan.target
        (planned,) = (p for p in stage.questions if p.label == question)
        table = self.store.read(planned.key)
        assert table is not None
        return {(row["record_id"], row["neighbor"]): row for row in table.to_pylist()}

    def labels(self) -> dict[str, bool | None]:
        table = self.inputs.records.table
        return dict(zip(*(table[c].to_pylist() for c in ("record_id", "is_member")), strict=True))

    def scored(self, attack: str) -> dict[str, float | None]:
        values = self.scores.column(self.plans[0].name, attack).tolist()
        found = zip(self.inputs.records.ids, values, strict=True)
        return {record: None if math.isnan(score) else score for record, score in found}


def answer(file: Path, break_record: bool = False) -> Answered:
    """Run an audit; ``break_record`` leaves the first record without an answer on a neighbor."""
    inputs = resolve_inputs(load_spec(file))
    store = EvidenceStore(inputs.spec.store)
    columns = (inputs.payloads[c].to_pylist() for c in ("record_id", "payload"))
    payloads = dict(zip(*columns, strict=True))
    before = plan_audit(inputs, store)
    for plan in before:
        for stage in plan.stages:
            model = stage.loader.load()
            for planned in stage.questions:
                items = [Item(r, n, payloads[r]) for r, n in planned.missing.pairs()]
                if not items:
                    continue
                table = planned.question.ask(model, items)
                if break_record and planned.label == "neighbors.crop":
                    rows = table.to_pylist()
                    rows[0] = {"record_id": rows[0]["record_id"], "neighbor": 1, "error": "broken"}
                    table = pa.Table.from_pylist(rows, schema=table.schema)
                store.commit(planned.key, table)
    plans = plan_audit(inputs, store)
    scores = ScoreParts(inputs.spec.store, "scores")
    reduction = reduce_audit(inputs, store, plans, scores, Here())
    result = sum_up(Run(inputs, store, before, plans, {}, 1.0), reduction, scores, Here())
    return Answered(inputs, store, plans, scores, result)


def two_answered(folder: Path, model: Path) -> tuple[Inputs, EvidenceStore, Sequence[TargetPlan]]:
    """Two targets of texts, whose models are asked in this process."""
    spec = audit(
        folder, model, PARAPHRASER, references=None, neighbors=None,
        targets=[{"name": n, "model": str(model), "max_tokens": t}
                 for n, t in (("one", 64), ("two", 5))],
        attacks=["loss", "zlib", "min_k"], metrics={"resamples": 100},
    )  # fmt: skip
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    answer_here(inputs, store)
    return inputs, store, plan_audit(inputs, store)


def answer_here(inputs: Inputs, store: EvidenceStore) -> None:
    """Ask the models of texts everything, in this process; of audits without neighbors."""
    columns = (inputs.payloads[c].to_pylist() for c in ("record_id", "payload"))
    payloads = dict(zip(*columns, strict=True))
    for stage in (stage for plan in plan_audit(inputs, store) for stage in plan.stages):
        loaded = stage.loader.load()
        for planned in stage.questions:
            items = [Item(r, n, payloads[r]) for r, n in planned.missing.pairs()]
            if items:
                store.commit(planned.key, planned.question.ask(loaded, items))
