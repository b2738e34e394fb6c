"""From stored evidence to scores and metrics; no model, no Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raymia.corpus import token_counts
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import ModelEvidence, ShadowEvidence, TextEvidence
from raymia.inputs import Inputs, NamedAttack
from raymia.metrics.summary import AttackMetrics, NotMeasured, measure
from raymia.plan import Stage, TargetPlan
from raymia.probes.questions import lay_out


def score_records(inputs: Inputs, store: EvidenceStore, plans: list[TargetPlan]) -> pa.Table:
    """Run every attack on the stored evidence.

    Returns
    -------
    Table with columns target, attack, record_id, is_member (null for candidates) and score (null
    where the attack has none for the record), one row per target, attack and record.
    """
    records = inputs.records.table
    tables = []
    for plan in plans:
        evidence = _Evidence(inputs, store, plan)
        for named in inputs.attacks:
            scores = named.attack.score(evidence.given_to(named))
            tables.append(
                pa.table(
                    {
                        "target": pa.array([plan.name] * records.num_rows),
                        "attack": pa.array([named.label] * records.num_rows),
                        "record_id": records["record_id"].combine_chunks(),
                        "is_member": records["is_member"].combine_chunks(),
                        "score": pa.array(scores, pa.float64(), mask=np.isnan(scores)),
                    }
                )
            )
    return pa.concat_tables(tables)


class _Evidence:
    """The evidence on one target, handed to each attack as far as it needs it."""

    def __init__(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> None:
        attacks = [named.attack for named in inputs.attacks]
        records = inputs.records
        self.records = _Answers(store, plan, records.ids, records.table["payload"].to_pylist())
        self.population = None
        if any(attack.uses_population for attack in attacks):
            texts = inputs.population
            self.population = _Answers(store, plan, list(texts), list(texts.values()))
        self.corpus = None
        if any(attack.uses_corpus for attack in attacks) and inputs.spec.corpus is not None:
            self.corpus = token_counts(inputs.spec.corpus, plan.target.loader.checkpoint, store)
        self.shadows = [
            ShadowEvidence(
                self.records.references[name], np.array([i in members for i in records.ids])
            )
            for name, members in inputs.shadow_members.items()
            if name in plan.references
        ]

    def given_to(self, named: NamedAttack) -> TextEvidence:
        attack, population = named.attack, None
        if attack.uses_population and self.population is not None:
            population = self.population.beside(named.reference)
        return self.records.beside(
            named.reference,
            shadows=self.shadows if attack.uses_shadows else (),
            population=population,
            corpus=self.corpus if attack.uses_corpus else None,
        )


class _Answers:
    """What a target and its references answered on some texts."""

    def __init__(
        self, store: EvidenceStore, plan: TargetPlan, ids: Sequence[str], texts: Sequence[str]
    ) -> None:
        self.texts = texts
        self.target = _model_evidence(plan.target, store, ids)
        self.references = {
            name: _model_evidence(stage, store, ids) for name, stage in plan.references.items()
        }

    def beside(self, reference: str | None, **others: Any) -> TextEvidence:
        against = None if reference is None else self.references[reference]
        return TextEvidence(self.texts, self.target, against, **others)


def _model_evidence(stage: Stage, store: EvidenceStore, ids: Sequence[str]) -> ModelEvidence:
    return ModelEvidence(
        **{p.question: lay_out(p.question, p.probe, store.read(p.key), ids) for p in stage.probes}
    )


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
