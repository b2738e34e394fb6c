"""From stored evidence to scores and metrics; no model, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores, mean_of_present
from raymia.corpus import token_counts
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import LabelledScores, ModelEvidence, ShadowEvidence, TextEvidence
from raymia.inputs import Inputs
from raymia.learning import fold_of
from raymia.metrics.dataset import DatasetInference, infer_dataset
from raymia.metrics.summary import AttackMetrics, NotMeasured, measure
from raymia.models.source import Checkpoint
from raymia.plan import Stage, TargetPlan
from raymia.probes.questions import lay_out
from raymia.records import RecordSet


def score_records(inputs: Inputs, store: EvidenceStore, plans: list[TargetPlan]) -> pa.Table:
    """Run every attack on the stored evidence.

    Returns
    -------
    Table with columns target, attack, record_id, is_member (null for candidates) and score (null
    where the attack has none for the record), one row per target, attack and record.
    """
    records = inputs.records.table
    tables = []
    # What combines the others' scores comes after them, whatever the order of the audit file.
    order = sorted(inputs.attacks, key=lambda named: named.attack.combines)
    for plan in plans:
        evidence = _Evidence(inputs, store, plan)
        found: dict[str, Scores] = {}
        for named in order:
            if named in inputs.attacks_on(plan.name):
                found[named.label] = named.attack.score(evidence.given_to(named, found))
        for named in inputs.attacks_on(plan.name):
            scores = found[named.label]
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
        attacks = [named.attack for named in inputs.attacks_on(plan.name)]
        records = inputs.records
        self.records = _Answers(store, plan, records.ids, records.table["payload"].to_pylist())
        self.is_member = records.table["is_member"].to_pylist()
        self.units = units(records)
        self.combined = {named.label for named in inputs.attacks if named.attack.combines}
        self.population = None
        if any(attack.uses_population for attack in attacks):
            texts = inputs.population
            self.population = _Answers(store, plan, list(texts), list(texts.values()))
        self.corpus = None
        checkpoint, corpus = inputs.targets[plan.name], inputs.spec.corpus
        if corpus and isinstance(checkpoint, Checkpoint) and any(a.uses_corpus for a in attacks):
            self.corpus = token_counts(corpus, checkpoint, store)
        self.shadows = [
            ShadowEvidence(
                self.records.references[name], np.array([i in members for i in records.ids])
            )
            for name, members in inputs.shadow_members.items()
            if name in plan.references
        ]

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> TextEvidence:
        attack, population, labelled = named.attack, None, None
        if attack.combines:
            published = {label: s for label, s in found.items() if label not in self.combined}
            labelled = LabelledScores(published, self.is_member, self.units)
        if attack.uses_population and self.population is not None:
            population = self.population.beside(named.reference)
        return self.records.beside(
            named.reference,
            shadows=self.shadows if attack.uses_shadows else (),
            population=population,
            corpus=self.corpus if attack.uses_corpus else None,
            labelled=labelled,
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


def units(records: RecordSet) -> list[str]:
    """What must not be split between what is fitted and what is judged: a record's group, or the
    record."""
    groups = records.table["group"].to_pylist()
    return [i if g is None else f"group {g}" for i, g in zip(records.ids, groups, strict=True)]


def measure_scores(inputs: Inputs, scores: pa.Table) -> list[AttackMetrics | NotMeasured]:
    """Metrics of every target and attack; none where members or non-members are not given."""
    labels = inputs.records.table["is_member"].to_pylist()
    return _measure(inputs, _per_attack(inputs, scores), labels)


def measure_groups(
    inputs: Inputs, scores: pa.Table
) -> tuple[list[AttackMetrics | NotMeasured], list[str]]:
    """Metrics over groups: a group's score is the mean of its records' scores.

    Returns
    -------
    The metrics, none without a group column; and what a reader must know of groups left out.
    """
    table = inputs.records.table
    members: dict[str, list[int]] = {}
    for row, group in enumerate(table["group"].to_pylist()):
        if group is not None:
            members.setdefault(group, []).append(row)
    labels = {g: {table["is_member"][r].as_py() for r in rows} for g, rows in members.items()}
    mixed = sorted(g for g, found in labels.items() if len(found) > 1)
    pure = {g: rows for g, rows in members.items() if g not in mixed}
    without = table["group"].null_count if members else 0
    notes = []
    if mixed:
        named = ", ".join(map(repr, mixed[:5])) + (", ..." if len(mixed) > 5 else "")
        notes.append(f"{len(mixed)} groups mix members and others and are not measured: {named}")
    if without:
        notes.append(f"{without} records have no group and count in no group")
    per_attack = {
        place: np.array([mean_of_present(values[rows]) for rows in pure.values()])
        for place, values in _per_attack(inputs, scores).items()
    }
    return _measure(inputs, per_attack, [next(iter(labels[g])) for g in pure]), notes


def infer_datasets(inputs: Inputs, scores: pa.Table) -> list[DatasetInference]:
    """Test members, and candidates, as whole sets against the non-members, on each target."""
    table = inputs.records.table
    labels = np.array(table["is_member"].to_pylist(), object)
    fitted = fold_of(units(inputs.records), 2, "half of dataset inference") == 0
    combined = {named.label for named in inputs.attacks if named.attack.combines}
    per_target: dict[str, list[Scores]] = {}
    for (target, attack), values in _per_attack(inputs, scores).items():
        if attack not in combined:
            per_target.setdefault(target, []).append(values)
    tests = []
    for target, columns in per_target.items():
        features = np.column_stack(columns)
        for name, label in (("members", True), ("candidates", None)):
            rows = np.array([x is label or x is False for x in labels])
            if inputs.records.count(label) and inputs.records.count(False):
                tests.append(
                    infer_dataset(
                        features[rows],
                        np.array([x is label for x in labels[rows]]),
                        fitted[rows],
                        target=target,
                        suspects=name,
                    )
                )
    return tests


def _per_attack(inputs: Inputs, scores: pa.Table) -> dict[tuple[str, str], Scores]:
    """Scores of all records by target and attack; NaN for none."""
    size = inputs.records.table.num_rows
    parts = (scores.slice(start, size) for start in range(0, scores.num_rows, size))
    return {
        (part["target"][0].as_py(), part["attack"][0].as_py()): part["score"].to_numpy(
            zero_copy_only=False
        )
        for part in parts
    }


def _measure(
    inputs: Inputs, per_attack: Mapping[tuple[str, str], Scores], labels: Sequence[bool | None]
) -> list[AttackMetrics | NotMeasured]:
    if not (True in labels and False in labels):
        return []
    spec = inputs.spec.metrics
    known = np.array([label is not None for label in labels])
    is_member = np.array([bool(label) for label in labels])[known]
    return [
        measure(
            values[known],
            is_member,
            target=target,
            attack=attack,
            fprs=spec.fprs,
            confidence=spec.confidence,
            resamples=spec.resamples,
            seed=inputs.spec.seed,
        )
        for (target, attack), values in per_attack.items()
    ]
