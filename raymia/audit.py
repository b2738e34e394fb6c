"""One audit from the audit file to the report."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import yaml
from rich.console import Console

from raymia import __version__
from raymia.errors import IncompleteRunError
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import (
    ModelEvidence,
    TextEvidence,
    neighbor_evidence,
    token_evidence,
)
from raymia.inputs import Inputs, resolve_inputs
from raymia.metrics.summary import AttackMetrics, NotMeasured, measure
from raymia.neighbors.mask_fill import MaskFillProbe
from raymia.plan import Stage, TargetPlan, plan_audit
from raymia.probes.text import NO_NEIGHBOR, NeighborProbe, TokenProbe
from raymia.report.files import write_run
from raymia.report.result import (
    AttackCard,
    Dropped,
    RecordCounts,
    ReferenceCard,
    RunResult,
    SetAside,
    StageCount,
)
from raymia.spec import AuditSpec, SelfPromptReference

TRUNCATED = "longer than the model's limit: its end was not scored"
VERSIONS_OF = ("raymia", "torch", "transformers", "ray", "numpy", "pyarrow")


def run_audit(spec: AuditSpec, console: Console) -> RunResult:
    """Run an audit: ask for what is missing, score, measure, and write the report.

    Raises
    ------
    InputError
        For anything wrong in what was given, before a model is loaded.
    """
    started = time.monotonic()
    inputs = resolve_inputs(spec)
    store = EvidenceStore(spec.store)
    before = plan_audit(inputs, store)
    done = {}
    if is_missing_anything(before):
        from raymia.engine.run import ask_models

        done = ask_models(inputs, store, spec.store, console)
    after = plan_audit(inputs, store)
    scores = score_records(inputs, store, after)
    stages = [
        StageCount(
            name=stage.name,
            kind=stage.role,
            key=" ".join(p.key.hash for p in stage.probes),
            asked=done[stage.name].done if stage.name in done else 0,
            stored=earlier.stored,
            seconds=round(done[stage.name].seconds, 2) if stage.name in done else 0.0,
            failed=done[stage.name].failed if stage.name in done else 0,
        )
        for earlier, stage in _stage_pairs(before, after)
    ]
    dropped = list(find_dropped(inputs, store, after))
    problems = _one_class_only(inputs)
    missing = [
        f"{s.name}: {s.asked} answers are missing" for p in after for s in p.stages if s.asked
    ]
    result = RunResult(
        name=spec.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: importlib.metadata.version(name) for name in VERSIONS_OF},
        seed=spec.seed,
        code_version=__version__,
        records=RecordCounts(
            members=inputs.records.count(True),
            non_members=inputs.records.count(False),
            candidates=inputs.records.count(None),
            set_aside=len(inputs.records.set_aside),
        ),
        set_aside=[
            SetAside(where=a.where, record_id=a.record_id, reason=a.reason)
            for a in inputs.records.set_aside
        ],
        dropped=dropped,
        dropped_total=len(dropped),
        stages=stages,
        references=reference_cards(inputs, store, after),
        attacks=_attack_cards(inputs),
        metrics=_measure(inputs, scores),
        complete=not missing,
        problems=[*missing, *problems],
        audit_yaml=yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False),
        seconds=round(time.monotonic() - started, 1),
    )
    write_run(spec.output, result, scores)
    if missing:
        raise IncompleteRunError("\n".join(missing))
    return result


def is_missing_anything(plans: list[TargetPlan]) -> bool:
    """Whether a model has to be asked anything, or a reference made."""
    return any(plan.asked or not all(p.ready for p in plan.preparations) for plan in plans)


def score_records(inputs: Inputs, store: EvidenceStore, plans: list[TargetPlan]) -> pa.Table:
    """Run every attack on the stored evidence.

    Returns
    -------
    Table with columns target, attack, record_id, is_member (null for candidates) and score (null
    where the attack has none for the record), one row per target, attack and record.
    """
    records = inputs.records.table
    ids, texts = records["record_id"].to_pylist(), records["payload"].to_pylist()
    tables = []
    for plan in plans:
        target = _model_evidence(plan.target, store, ids)
        references = {n: _model_evidence(s, store, ids) for n, s in plan.references.items()}
        for named in inputs.attacks:
            reference = None if named.reference is None else references[named.reference]
            scores = named.attack.score(TextEvidence(texts, target, reference))
            tables.append(
                pa.table(
                    {
                        "target": pa.array([plan.name] * len(ids)),
                        "attack": pa.array([named.label] * len(ids)),
                        "record_id": records["record_id"].combine_chunks(),
                        "is_member": records["is_member"].combine_chunks(),
                        "score": pa.array(scores, pa.float64(), mask=np.isnan(scores)),
                    }
                )
            )
    return pa.concat_tables(tables)


def _model_evidence(stage: Stage, store: EvidenceStore, ids: list[str]) -> ModelEvidence:
    key = stage.key(TokenProbe.kind)
    tokens = token_evidence(store.read(key) if key else None, ids)
    probe = next((p for p in stage.probes if isinstance(p.probe, NeighborProbe)), None)
    if probe is None or not isinstance(probe.probe, NeighborProbe):
        return ModelEvidence(tokens)
    return ModelEvidence(tokens, neighbor_evidence(store.read(probe.key), ids, probe.probe.count))


def _measure(inputs: Inputs, scores: pa.Table) -> list[AttackMetrics | NotMeasured]:
    """Metrics of every target and attack, where members and non-members are known."""
    if not (inputs.records.count(True) and inputs.records.count(False)):
        return []
    spec = inputs.spec.metrics
    size = inputs.records.table.num_rows
    known = inputs.records.table["is_member"].to_numpy(zero_copy_only=False)
    labelled = np.array([m is not None for m in known])
    is_member = known[labelled].astype(bool)
    metrics: list[AttackMetrics | NotMeasured] = []
    for start in range(0, scores.num_rows, size):
        part = scores.slice(start, size)
        metrics.append(
            measure(
                part["score"].to_numpy(zero_copy_only=False)[labelled],
                is_member,
                target=part["target"][0].as_py(),
                attack=part["attack"][0].as_py(),
                fprs=spec.fprs,
                confidence=spec.confidence,
                resamples=spec.resamples,
                seed=inputs.spec.seed,
            )
        )
    return metrics


def find_dropped(
    inputs: Inputs, store: EvidenceStore, plans: list[TargetPlan]
) -> Iterable[Dropped]:
    """Evidence that could not be had, and texts that were scored in part, each named."""
    records = set(inputs.records.table["record_id"].to_pylist())
    seen: set[str] = set()
    for stage in (stage for plan in plans for stage in plan.stages):
        for planned in stage.probes:
            if planned.key.hash in seen:
                continue
            seen.add(planned.key.hash)
            cut = [] if planned.key.kind == MaskFillProbe.kind else ["truncated"]
            table = store.read(planned.key, columns=["error", *cut])
            if table is None:
                continue
            reasons = [
                error or (TRUNCATED if truncated else None)
                for error, truncated in zip(
                    table["error"].to_pylist(),
                    table["truncated"].to_pylist() if cut else [False] * table.num_rows,
                    strict=True,
                )
            ]
            rows = zip(table["record_id"].to_pylist(), table["neighbor"].to_pylist(), reasons,
                       strict=True)  # fmt: skip
            for record, neighbor, reason in rows:
                # The maker of neighbors has named those that could not be made.
                if reason is not None and reason != NO_NEIGHBOR and record in records:
                    yield Dropped(stage=stage.name, record_id=record, neighbor=neighbor or None,
                                  reason=reason)  # fmt: skip


def reference_cards(
    inputs: Inputs, store: EvidenceStore, plans: list[TargetPlan]
) -> list[ReferenceCard]:
    """What the references are, and how good those are that were made for this audit."""
    cards = []
    for plan in plans:
        made = {p.reference: p.recipe for p in plan.preparations}
        for name in plan.references:
            spec = inputs.spec.references[name]
            facts = (store.prepared_facts(made[name].key) or {}) if name in made else {}
            base = (
                inputs.spec.references[spec.base] if isinstance(spec, SelfPromptReference) else spec
            )
            cards.append(
                ReferenceCard(
                    target=plan.name, name=name, kind=spec.kind,
                    model=getattr(base, "model", ""), facts=facts,
                )
            )  # fmt: skip
    return cards


def _one_class_only(inputs: Inputs) -> list[str]:
    members, others = inputs.records.count(True), inputs.records.count(False)
    if bool(members) == bool(others):
        return []
    given, lacking = ("members", "non-members") if members else ("non-members", "members")
    return [f"{given} are given and no {lacking}: records are scored, and nothing can be measured"]


def _attack_cards(inputs: Inputs) -> list[AttackCard]:
    kinds = {type(named.attack) for named in inputs.attacks}
    return [
        AttackCard(name=k.name, title=k.title, source=k.source, formula=k.formula)
        for k in sorted(kinds, key=lambda k: k.name)
    ]


def _stage_pairs(
    before: list[TargetPlan], after: list[TargetPlan]
) -> Iterable[tuple[Stage, Stage]]:
    """Each stage as planned before the run and after it, shared stages once."""
    seen: set[str] = set()
    for earlier, later in zip(before, after, strict=True):
        for old, new in zip(earlier.stages, later.stages, strict=True):
            if new.name not in seen:
                seen.add(new.name)
                yield old, new
