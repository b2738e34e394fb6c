"""The reduction of an audit: each target is scored and measured where its evidence is read.

Every step is a function of what all steps share and of one small job, so that it runs here or on
any machine; what it gives back is small. Scores stay in :class:`raymia.scoring.parts.ScoreParts`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.row_index import RowIndex
from raymia.evidence.sharded import ShardedEvidence, shards_of
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.metrics.claims import conformal_p_values
from raymia.metrics.comparison import Place, Question, compare, corrected
from raymia.metrics.dataset import DatasetInference, infer_dataset
from raymia.metrics.learning import Features, fold_of
from raymia.metrics.summary import CandidateClaims, Comparison, Metrics
from raymia.plan.stages import TargetPlan
from raymia.records.base import RecordSet
from raymia.results.curves import AttackCurves
from raymia.results.deletions import retrained
from raymia.results.scores import SCORES_SCHEMA
from raymia.scoring.attack_scores import attack_scores
from raymia.scoring.comparisons import questions_of
from raymia.scoring.evidence import unit_column
from raymia.scoring.ids import NAMED, repeated
from raymia.scoring.judge import Judge, Judged
from raymia.scoring.parts import ScoreParts, room_for_scores
from raymia.scoring.workers import Workers
from raymia.shift.copies import linked
from raymia.util.errors import RaymiaError
from raymia.util.hashing import rows_alike, string_hashes

ROWS_AT_ONCE = 2**20
"""Rows of the run's table that are held at once."""
NAMES_AT_ONCE = 2**16
"""Names of units that are strings at once."""
MAX_HERE = 1_000_000
"""Scores up to which a reduction is done before Ray would have started."""


def count_scores(inputs: Inputs, plans: Sequence[TargetPlan]) -> int:
    """How many scores targets will have."""
    per_record: int = sum(len(inputs.attacks_on(plan.name)) for plan in plans)
    records: int = inputs.records.table.num_rows
    return per_record * records


@dataclass(frozen=True)
class Reduction:
    """What a report needs of an audit's scores.

    Attributes
    ----------
    metrics, group_metrics : of every target and attack; none where there is nothing to measure.
    split_by_group : whether groups hold all members and non-members, and none holds both.
    group_notes : what a reader must know of groups left out.
    curves : of the attacks that were measured.
    comparisons : of leading attacks, all corrected together.
    claims : about candidates.
    """

    metrics: list[Metrics]
    group_metrics: list[Metrics]
    split_by_group: bool
    group_notes: list[str]
    curves: list[AttackCurves]
    comparisons: list[Comparison]
    claims: list[CandidateClaims]


def reduce_audit(
    inputs: Inputs,
    store: EvidenceStore,
    plans: Sequence[TargetPlan],
    parts: ScoreParts,
    workers: Workers,
) -> Reduction:
    """Score every target and measure every attack.

    Afterwards the scores are in ``parts``.

    Raises
    ------
    RaymiaError
        If a record is there twice, or an attack has not one score for each record.
    """
    again = repeated(inputs.records.table["record_id"])
    if again:
        raise RaymiaError(
            f"{len(again)} records are there twice, which reading them should prevent: "
            + ", ".join(again[:NAMED])
        )
    workers.map("scored targets", _keep_scores, (inputs, store, parts), [(p,) for p in plans])
    judge = Judge.of(inputs)
    pairs = [(plan.name, named.label) for plan in plans for named in inputs.attacks_on(plan.name)]
    judged = workers.map("measured attacks", _judge_kept, (judge, parts), pairs)
    metrics = [j.metrics for j in judged if j.metrics is not None]
    combined = {named.label for named in inputs.attacks if "other_scores" in named.attack.needs}
    asked = questions_of(metrics, combined, retrained(inputs.spec))
    questions = [(question,) for question in asked]
    compared = workers.map("compared attacks", _compare_kept, (judge, parts), questions)
    return Reduction(
        metrics=metrics,
        group_metrics=[j.group_metrics for j in judged if j.group_metrics is not None],
        split_by_group=judge.groups is not None and judge.groups.hold_all,
        group_notes=[] if judge.groups is None else judge.groups.notes,
        curves=[c for j in judged for c in (j.curves, j.group_curves) if c is not None],
        comparisons=corrected([entry for found in compared for entry in found]),
        claims=[claim for j in judged for claim in j.claims],
    )


def score_target(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> dict[str, Scores]:
    """Run every attack on what is stored of one target.

    Returns
    -------
    By label, in the order of the audit file: float64 [records], in their order; NaN where the
    attack has no score for a record.
    """
    attacks = inputs.attacks_on(plan.name)
    singly = [a for a in attacks if not _is_fitted(inputs, a)]
    shards = shards_of(inputs.records.table["payload"])
    found: dict[str, Scores] = {}
    if singly and len(shards) > 1:
        found = _score_in_shards(inputs, store, plan, singly, shards)
    together = [a for a in attacks if a.label not in found]
    # What combines the others' scores comes after them, whatever the order of the audit file.
    found |= _score(inputs, store, plan, together, found)
    return {named.label: found[named.label] for named in attacks}


def _is_fitted(inputs: Inputs, named: NamedAttack) -> bool:
    """Whether an attack judges a record by the others: one that does has to see all."""
    attack = named.attack
    return (
        attack.looks_at_all
        or bool(attack.needs & {"other_scores", "units"})
        or inputs.modality.tells_labels(inputs.spec, attack)
    )


def _reads_answers(named: NamedAttack) -> bool:
    """Whether an attack looks at what models answered, and not only at what others made of it."""
    return bool(named.attack.asks) or named.attack.needs != {"other_scores"}


def _score_in_shards(
    inputs: Inputs,
    store: EvidenceStore,
    plan: TargetPlan,
    attacks: Sequence[NamedAttack],
    shards: Sequence[slice],
) -> dict[str, Scores]:
    """Scores of attacks that judge each record by itself, with the evidence of some at a time."""
    records = inputs.records.table
    index = RowIndex(inputs.payloads["record_id"])
    sharded = ShardedEvidence(store, index, shards)
    found = {named.label: room_for_scores(records.num_rows) for named in attacks}
    for rows in sharded.shards():
        shard = RecordSet(records.slice(rows.start, rows.stop - rows.start))
        for label, scores in _score(
            replace(inputs, records=shard), sharded, plan, attacks, {}
        ).items():
            found[label][rows] = scores
    return found


def _score(
    inputs: Inputs,
    store: EvidenceStore,
    plan: TargetPlan,
    attacks: Sequence[NamedAttack],
    before: Mapping[str, Scores],
) -> dict[str, Scores]:
    """Scores of some attacks on some records.

    Parameters
    ----------
    before : what other attacks have found.
    """
    found: dict[str, Scores] = {}
    if not attacks:
        return found
    if not any(_reads_answers(named) for named in attacks):
        plan = replace(plan, target=replace(plan.target, questions=()), references={})
    evidence = inputs.modality.evidence_on(inputs, store, plan)
    for named in sorted(attacks, key=lambda named: "other_scores" in named.attack.needs):
        all_found = {**before, **found}
        in_order = (a.label for a in inputs.attacks_on(plan.name) if a.label in all_found)
        given = evidence.given_to(named, {label: all_found[label] for label in in_order})
        count = inputs.records.table.num_rows
        found[named.label] = attack_scores(
            named.attack, given, count, label=named.label, target=plan.name
        )
    return found


def infer_datasets(
    inputs: Inputs,
    target: str,
    scores: dict[str, Scores],
    clusters: Mapping[str, str] | None = None,
) -> list[DatasetInference]:
    """Test members, and candidates, as whole sets against the non-members of one target.

    Parameters
    ----------
    scores : [records] by the attack's label. Attacks that are fitted on labels are left out: their
        scores of one half hold the labels of the other.
    clusters : of near-copies, by record id. Copies stay together, with their groups, and count
        once: what was fitted on one knows the others.
    """
    judge = Judge.of(inputs)
    fitted_on_labels = inputs.fitted_on_labels
    columns = [values for label, values in scores.items() if label not in fitted_on_labels]
    of = judge.records
    classes = {"members": of.is_member, "candidates": ~of.known}
    others = of.known & ~of.is_member
    suspects = {name: rows for name, rows in classes.items() if rows.any() and others.any()}
    if not suspects or not columns:
        return []
    features = Features(columns)
    units, fitted = _units_and_halves(inputs, clusters or {})
    return [
        infer_dataset(
            features.of(rows | others),
            rows[rows | others],
            fitted[rows | others],
            units[rows | others],
            target=target,
            suspects=name,
        )
        for name, rows in suspects.items()
    ]


def _units_and_halves(
    inputs: Inputs, clusters: Mapping[str, str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The number of each record's unit, in the order in which units come first, and whether
    dataset inference is fitted on it."""
    column, joined = unit_column(inputs.records), _joined(inputs, clusters)
    hashes, fitted = [], []
    for start in range(0, len(column), NAMES_AT_ONCE):
        names = column.slice(start, NAMES_AT_ONCE).to_pylist()
        together = [joined.get(name, name) for name in names]
        hashes.append(string_hashes(pa.array(together, pa.string())))
        fitted.append(fold_of(together, 2, "half of dataset inference") == 0)
    units = np.concatenate(hashes)
    if not rows_alike(units).size:
        return np.arange(units.size), np.concatenate(fitted)
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    number = np.empty(first.size, np.int64)
    number[np.argsort(first)] = np.arange(first.size)
    return number[unit], np.concatenate(fitted)


def _joined(inputs: Inputs, clusters: Mapping[str, str]) -> dict[str, str]:
    """One name for all units that copies link, directly or by others, by the unit's name."""
    ids = inputs.records.table["record_id"]
    is_copy = pc.is_in(ids, value_set=pa.array(list(clusters), pa.string()))
    found = [clusters[name] for name in ids.filter(is_copy).to_pylist()]
    units = unit_column(inputs.records).filter(is_copy).to_pylist()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(units))}
    by_number, first = list(numbers), dict(zip(reversed(found), reversed(units), strict=True))
    links = [(numbers[first[name]], numbers[unit]) for name, unit in zip(found, units, strict=True)]
    name_of = dict(zip(reversed(units), reversed(found), strict=True))
    return {
        by_number[number]: name_of[by_number[some[0]]]
        for some in linked(links)
        if len(some) > 1
        for number in some
    }


def infer_all_datasets(
    inputs: Inputs,
    targets: Sequence[str],
    parts: ScoreParts,
    clusters: Mapping[str, str],
    workers: Workers,
) -> list[DatasetInference]:
    """Test the sets of all targets, whose scores are in ``parts``; see :func:`infer_datasets`."""
    shared = inputs, parts, clusters
    tests = workers.map("tested sets", _test_kept, shared, [(name,) for name in targets])
    return [test for found in tests for test in found]


def score_tables(
    inputs: Inputs, plans: Sequence[TargetPlan], parts: ScoreParts
) -> Iterator[pa.Table]:
    """The rows of the run's table, piece by piece, by target, attack and record.

    Yields
    ------
    Tables with :data:`raymia.results.scores.SCORES_SCHEMA`, none with rows of two attacks: null for
    the membership of candidates, where an attack has no score, and for the p-value of others
    than candidates.
    """
    records = inputs.records.table.select(["record_id", "is_member"])
    is_candidate = pc.is_null(records["is_member"]).to_numpy()
    is_other = pc.equal(records["is_member"], False).fill_null(False).to_numpy()
    for plan in plans:
        for named in inputs.attacks_on(plan.name):
            scores = parts.column(plan.name, named.label)
            found = conformal_p_values(scores[is_candidate], scores[is_other])
            for start in range(0, records.num_rows, ROWS_AT_ONCE):
                piece = records.slice(start, ROWS_AT_ONCE)
                rows = slice(start, start + piece.num_rows)
                p_values = np.full(piece.num_rows, np.nan)
                own, found = np.split(found, [np.count_nonzero(is_candidate[rows])])
                p_values[is_candidate[rows]] = own
                columns = [
                    pa.repeat(plan.name, piece.num_rows),
                    pa.repeat(named.label, piece.num_rows),
                    piece["record_id"],
                    piece["is_member"],
                    *(
                        pa.array(values, pa.float64(), mask=np.isnan(values))
                        for values in (scores[rows], p_values)
                    ),
                ]
                yield pa.table(columns, schema=SCORES_SCHEMA)


def _keep_scores(shared: tuple[Inputs, EvidenceStore, ScoreParts], plan: TargetPlan) -> None:
    inputs, store, parts = shared
    parts.write(plan.name, score_target(inputs, store, plan))


def _judge_kept(shared: tuple[Judge, ScoreParts], target: str, attack: str) -> Judged:
    judge, parts = shared
    return judge.judge(parts.column(target, attack), target=target, attack=attack)


def _compare_kept(shared: tuple[Judge, ScoreParts], questions: list[Question]) -> list[Comparison]:
    judge, parts = shared
    known = judge.records.known

    def scores_of(place: Place) -> Scores:
        scores = parts.column(*place)
        return scores if known.all() else np.where(known, scores, np.nan)

    return compare(
        questions,
        scores_of,
        judge.records.is_member,
        confidence=judge.metrics.confidence,
        fitted=judge.fitted,
    )


def _test_kept(
    shared: tuple[Inputs, ScoreParts, Mapping[str, str]], target: str
) -> list[DatasetInference]:
    inputs, parts, clusters = shared
    return infer_datasets(inputs, target, parts.read(target), clusters)
