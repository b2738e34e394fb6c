"""From stored evidence to scores and metrics; no model, no Ray."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import ModelEvidence, TextEvidence, neighbor_evidence, token_evidence
from raymia.inputs import Inputs
from raymia.metrics.summary import AttackMetrics, NotMeasured, measure
from raymia.plan import Stage, TargetPlan
from raymia.probes.text import NeighborProbe, TokenProbe


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
        for named in inputs.attacks_on(plan.name):
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
    tokens = token_evidence(None if key is None else store.read(key), ids)
    for planned in stage.probes:
        if isinstance(planned.probe, NeighborProbe):
            answers = store.read(planned.key)
            return ModelEvidence(tokens, neighbor_evidence(answers, ids, planned.probe.count))
    return ModelEvidence(tokens)


def measure_scores(inputs: Inputs, scores: pa.Table) -> list[AttackMetrics | NotMeasured]:
    """Metrics of every target and attack; none where members or non-members are not given."""
    if not (inputs.records.count(True) and inputs.records.count(False)):
        return []
    spec = inputs.spec.metrics
    size = inputs.records.table.num_rows
    known = inputs.records.table["is_member"].to_numpy(zero_copy_only=False)
    labelled = np.array([label is not None for label in known])
    is_member = known[labelled].astype(bool)
    parts = (scores.slice(start, size) for start in range(0, scores.num_rows, size))
    return [
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
        for part in parts
    ]
