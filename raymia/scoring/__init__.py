"""From stored evidence to scores and metrics; no model, no Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from raymia.attacks.base import Scores, mean_of_present
from raymia.evidence.store import EvidenceStore
from raymia.inputs import Inputs
from raymia.learning import fold_of
from raymia.metrics import AttackMetrics, NotMeasured, calibration_half, measure
from raymia.metrics.dataset import DatasetInference, infer_dataset
from raymia.plan import TargetPlan
from raymia.scoring.evidence import evidence_on, units


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
        evidence = evidence_on(inputs, store, plan)
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
                        "p_value": pa.nulls(records.num_rows, pa.float64()),
                    }
                )
            )
    return pa.concat_tables(tables)


def measure_scores(inputs: Inputs, scores: pa.Table) -> list[AttackMetrics | NotMeasured]:
    """Metrics of every target and attack; none where members or non-members are not given."""
    labels = inputs.records.table["is_member"].to_pylist()
    return _measure(inputs, _per_attack(inputs, scores), labels, units(inputs.records))


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
    return _measure(inputs, per_attack, [next(iter(labels[g])) for g in pure], list(pure)), notes


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
    inputs: Inputs,
    per_attack: Mapping[tuple[str, str], Scores],
    labels: Sequence[bool | None],
    unit_of: Sequence[str],
) -> list[AttackMetrics | NotMeasured]:
    if not (True in labels and False in labels):
        return []
    spec = inputs.spec.metrics
    known = np.array([label is not None for label in labels])
    is_member = np.array([bool(label) for label in labels])[known]
    calibration = calibration_half(unit_of)[known]
    return [
        measure(
            values[known],
            is_member,
            target=target,
            attack=attack,
            calibration=calibration,
            fprs=spec.fprs,
            priors=spec.priors,
            confidence=spec.confidence,
            resamples=spec.resamples,
            seed=inputs.spec.seed,
        )
        for (target, attack), values in per_attack.items()
    ]
