"""What a run came to: counts, what could not be had, and everything needed to repeat it."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from raymia import __version__
from raymia.attacks import Attack
from raymia.attacks.base import when_no_score
from raymia.evidence.row_index import RowIndex
from raymia.evidence.secret import secret_of
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.inputs.compatibility import identical_models
from raymia.metrics.learning import MAX_FITTED
from raymia.plan.planning import AuditPlan
from raymia.plan.stages import PlannedQuestion, Stage, TargetPlan, by_name
from raymia.questions.text import NO_NEIGHBOR
from raymia.results.deletions import deletions_of
from raymia.results.disguise import Disguise
from raymia.results.extraction import Extraction
from raymia.results.gate import evaluate
from raymia.results.privacy import claims_of
from raymia.results.redaction import redact, without_content
from raymia.results.references import reference_lines
from raymia.results.result import (
    LONGEST_LIST,
    TRUNCATED,
    AttackCard,
    Dropped,
    FailedTarget,
    NotRun,
    RecordCounts,
    ReferenceCard,
    RunResult,
    SetAside,
    StageCount,
)
from raymia.results.verdict import reach_verdict
from raymia.run.attack_costs import attack_costs, target_losses
from raymia.scoring.blind import ask_blind, excess_over_blind
from raymia.scoring.distinct import measure_distinct
from raymia.scoring.parts import ScoreParts
from raymia.scoring.reduction import Reduction, infer_all_datasets
from raymia.scoring.workers import Workers
from raymia.spec import MadeReference, ModelSpec
from raymia.spec.conditions import parse_conditions
from raymia.util.column import Column
from raymia.util.credentials import hidden_in
from raymia.util.memory import hand_back_memory

Found = TypeVar("Found")
ROWS_AT_ONCE = 2**16
VERSIONS_OF = ("raymia", "torch", "transformers", "ray", "numpy", "pyarrow")


class StageWork(Protocol):
    """What a stage did in this run."""

    done: int
    failed: int
    seconds: float
    questions: dict[str, int]


@dataclass(frozen=True)
class Run:
    """An audit's run, before it is summed up.

    Attributes
    ----------
    before, after : the plans before and after the models were asked.
    work : what each stage did, by name; empty where no model was asked.
    failed : targets that could not be asked everything, and why.
    """

    inputs: Inputs
    store: EvidenceStore
    before: AuditPlan
    after: AuditPlan
    work: Mapping[str, StageWork]
    seconds: float
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def scored(self) -> list[TargetPlan]:
        """The plans, after the run, of the targets that have scores."""
        return [plan for plan in self.after if plan.name not in self.failed]


def sum_up(run: Run, reduction: Reduction, scores: ScoreParts, workers: Workers) -> RunResult:
    """Sum a run up. It is complete when no answer is missing and no target failed on the way."""
    records, lost = run.inputs.records, _Lost.of(find_dropped(run))
    hand_back_memory()
    failed = [
        FailedTarget(name=name, reason=reason)
        for name, reason in {**run.failed, **dict(_without_answers(run, lost))}.items()
    ]

    def elsewhere(what: str, function: Callable[..., Found], *arguments: Any) -> Found:
        """Look at records, evidence or scores where there is room for them."""
        found: list[Found] = workers.map(what, _call, (function, *arguments), [()])
        return found[0]

    # A list: the plan of the audit holds the records once more.
    blind = elsewhere("blind guessers", ask_blind, run.inputs, run.store, list(run.after))
    names = [plan.name for plan in run.scored]
    tests = infer_all_datasets(run.inputs, names, scores, blind.clusters, workers)
    distinct = measure_distinct(run.inputs, names, scores, blind.clusters, workers)
    looked_at = run.inputs, run.store, run.scored, scores, reduction.metrics
    modality = run.inputs.modality
    findings = elsewhere("shown records", modality.look, *looked_at)
    qualities = dict(
        modality.neighbor_qualities(run.inputs, run.store, next(iter(run.scored), run.after[0]))
    )
    missing = [
        f"{stage.name}: {stage.to_ask} answers are missing"
        for _, stage in _stages(run)
        if stage.to_ask and stage.only_for not in run.failed
    ]
    references = list(_reference_cards(run))
    result = RunResult(
        name=run.inputs.spec.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            name: importlib.metadata.version(name) for name in VERSIONS_OF + modality.libraries
        },
        seed=run.inputs.spec.seed,
        code_version=__version__,
        records=RecordCounts(
            members=records.count(True),
            non_members=records.count(False),
            candidates=records.count(None),
            set_aside=len(records.set_aside),
        ),
        set_aside=[
            SetAside(where=a.where, record_id=a.record_id, reason=a.reason)
            for a in records.set_aside
        ],
        dropped=lost.listed,
        dropped_total=lost.cut + lost.errors.total(),
        cut_total=lost.cut,
        stages=list(_stage_counts(run)),
        references=references,
        neighbors=next(iter(qualities.values()), None),
        neighbors_by_name=qualities if qualities.keys() - {""} else {},
        attacks=_attack_cards(run.inputs),
        metrics=reduction.metrics,
        group_metrics=reduction.group_metrics,
        distinct_metrics=distinct,
        split_by_group=reduction.split_by_group,
        comparisons=reduction.comparisons,
        claims=reduction.claims,
        extractions=list(_extractions(run)),
        dataset_inference=tests,
        shift=blind.check,
        excess_over_blind=elsewhere(
            "excess over blind", excess_over_blind, run.inputs, run.scored, scores, blind
        ),
        costs=attack_costs(run.inputs, run.scored),
        losses=list(target_losses(run.inputs, names, scores)),
        **vars(findings),
        failed=failed,
        not_run=[
            NotRun(target=target, attack=attack, reason=reason)
            for (target, attack), reason in run.inputs.left_out.items()
            if (target, attack) not in run.before.inputs.left_out
        ],
        undecided=run.inputs.spec.undecided,
        complete=not missing and not run.failed,
        problems=[
            *(f"target {one.name} failed and is not ranked: {one.reason}" for one in failed),
            *missing,
            *_unproven(run.store),
            *_one_class_only(run.inputs),
            *_fitted_on_samples(run.inputs),
            *run.inputs.assumed,
            *run.inputs.noted,
            *run.inputs.left_out_lines(),
            *identical_models(run.inputs),
            *reference_lines(references),
            *reduction.group_notes,
        ],
        audit_yaml=_audit_yaml(run.inputs),
        seconds=round(run.seconds, 1),
    )
    result = result.model_copy(update={"verdict": reach_verdict(result)})
    decided = {
        "gate": evaluate(parse_conditions(run.inputs.spec.fail_if), result),
        "privacy": claims_of(run.inputs.spec, result),
        "deletions": deletions_of(run.inputs.spec, result),
    }
    shown = run.inputs.spec.report
    result = without_content(
        result.model_copy(update=decided),
        texts=shown.texts,
        pictures=shown.pictures,
    )
    if not shown.redact:
        return result
    return redact(result, disguise_of(run.inputs, run.store))


def disguise_of(inputs: Inputs, store: EvidenceStore) -> Disguise:
    """What an audit that is redacted calls its records and files."""
    return Disguise.of_audit(secret_of(store.folder), inputs.spec.model_dump(mode="json"))


def _unproven(store: EvidenceStore) -> Iterator[str]:
    """What was read of which nothing says that nobody has changed it; all evidence has been read
    in this process by now, see :func:`find_dropped`."""
    left = [name for name in store.unproven if store.folder.exists(name)]  # others were merged
    parts = sum(name.startswith(("evidence/", "corpus/")) for name in left)
    for count, what in ((parts, "files of evidence"), (len(left) - parts, "prepared models")):
        if count:
            yield (
                f"{what} without hashes in the store: {count:,}, not verified; an earlier version "
                "wrote them, or another program wrote them anew, and a change since they were made "
                "would not be seen; `raymia store verify` names their folders, and what is deleted "
                "is made again"
            )


def _audit_yaml(inputs: Inputs) -> str:
    """The audit as it was run, without credentials; and how its targets were written where they
    were patterns."""
    content = yaml.safe_dump(hidden_in(inputs.spec.model_dump(mode="json")), sort_keys=False)
    if inputs.written is None or inputs.written.targets == inputs.spec.targets:
        return content
    dumped = inputs.written.model_dump(mode="json", include={"targets"}, exclude_unset=True)
    lines = yaml.safe_dump(hidden_in(dumped), sort_keys=False).splitlines()
    return content + "".join(f"# {line}\n" for line in ("as it was written:", *lines))


def _extractions(run: Run) -> Iterator[Extraction]:
    for plan in run.scored:
        found = run.inputs.modality.extraction(run.inputs, run.store, plan)
        if found is not None:
            yield found


def _call(shared: tuple[Any, ...]) -> Any:
    function, *arguments = shared
    return function(*arguments)


@dataclass
class _Lost:
    """What could not be had, or of a part of the record.

    Attributes
    ----------
    listed : the first of it, as many as a result lists.
    cut : records that were scored in part.
    errors : the others, by stage.
    """

    listed: list[Dropped] = field(default_factory=list)
    cut: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, dropped: Iterable[Dropped]) -> _Lost:
        found = cls()
        for one in dropped:
            if len(found.listed) < LONGEST_LIST:
                found.listed.append(one)
            if one.reason == TRUNCATED:
                found.cut += 1
            else:
                found.errors[one.stage] += 1
        return found


def find_dropped(run: Run) -> Iterator[Dropped]:
    """Name evidence that could not be had, and texts that were scored in part."""
    for _, stage in _stages(run):
        for planned in stage.questions:
            yield from _dropped(run, run.after.row_index, stage, planned)


def _dropped(
    run: Run, index: RowIndex, stage: Stage, planned: PlannedQuestion
) -> Iterator[Dropped]:
    columns = [name for name in ("error", "truncated") if name in planned.question.schema.names]
    indices = planned.question.indices()
    seen = np.zeros((len(index), len(indices)), np.bool_)
    for part in run.store.parts(planned.key, columns):
        picked, rows, cells = index.cells_of(part, indices)
        _, first = np.unique(rows * len(indices) + cells, return_index=True)
        new = np.sort(first[~seen[rows[first], cells[first]]])
        seen[rows[new], cells[new]] = True
        is_new = np.zeros(part.num_rows, np.bool_)
        is_new[picked[new]] = True
        is_named = pc.is_valid(part["error"])
        if "truncated" in columns:
            is_named = pc.or_(is_named, pc.fill_null(part["truncated"], False))
        for row in _rows(part.filter(pc.and_(is_named, pa.array(is_new)))):
            reason = row["error"] or (TRUNCATED if row.get("truncated") else None)
            # The stage that makes neighbors names those that could not be made.
            if reason is not None and reason != NO_NEIGHBOR:
                yield Dropped(
                    stage=stage.name,
                    record_id=row["record_id"],
                    neighbor=row["neighbor"] or None,
                    reason=reason,
                )


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, of which some thousand are made at a time."""
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _without_answers(run: Run, lost: _Lost) -> Iterator[tuple[str, str]]:
    """Targets that answered, but with errors alone, as one does whose weights are not finite."""
    for plan in run.scored:
        if lost.errors[plan.target.name] < run.inputs.records.table.num_rows:
            continue
        tables = [run.store.read(planned.key, ["error"]) for planned in plan.target.questions]
        reasons = Counter(r for t in tables if t is not None for r in Column[Any](t["error"]))
        if reasons and None not in reasons:
            total, (first, _) = reasons.total(), reasons.most_common(1)[0]
            yield plan.name, f"every one of its {total:,} answers is an error, as: {first}"


def _stages(run: Run) -> Iterator[tuple[Stage, Stage]]:
    """Each stage before and after the run; stages that targets share come once, and those that
    were left out on the way not at all."""
    before = by_name(stage for plan in run.before for stage in plan.stages)
    after = by_name(stage for plan in run.after for stage in plan.stages)
    for name, stage in after.items():
        yield before[name], stage


def _stage_counts(run: Run) -> Iterator[StageCount]:
    for before, after in _stages(run):
        work = run.work.get(after.name)
        yield StageCount(
            name=after.name,
            kind=after.role,
            key=" ".join(planned.key.hash for planned in after.questions),
            asked=0 if work is None else work.done,
            questions={} if work is None else dict(work.questions),
            stored=before.stored,
            seconds=0.0 if work is None else round(work.seconds, 2),
            failed=0 if work is None else work.failed,
        )


def _reference_cards(run: Run) -> Iterator[ReferenceCard]:
    """What the references are, and how good those are that were made for this audit."""
    specs, modality = run.inputs.spec.references, run.inputs.modality
    for plan in run.after:
        recipes = {p.reference: p.recipe for p in plan.preparations}
        for name in plan.references:
            spec = specs[name]
            recipe = recipes.get(name)
            facts = None if recipe is None else run.store.prepared_facts(recipe.key)
            if recipe is not None and facts:
                own = modality.facts_of_made(run.inputs, run.store, recipe, facts)
                facts = {**facts, **own}
            base = specs.get(spec.base or "") if isinstance(spec, MadeReference) else spec
            yield ReferenceCard(
                target=plan.name,
                name=name,
                kind=spec.kind,
                model=base.model if isinstance(base, ModelSpec) else "",
                facts=facts or {},
            )


def _attack_cards(inputs: Inputs) -> list[AttackCard]:
    labels: dict[type[Attack], list[str]] = {}
    for named in inputs.attacks:
        if inputs.runs(named):
            labels.setdefault(type(named.attack), []).append(named.label)
    fitted = {kind: not inputs.fitted_on_labels.isdisjoint(labels[kind]) for kind in labels}
    return [
        AttackCard(
            name=kind.name,
            title=kind.title,
            source=kind.source,
            formula=kind.formula,
            labels=labels[kind],
            combines="other_scores" in kind.needs,
            learns=fitted[kind],
            fitted_on_labels=fitted[kind],
            no_score=when_no_score(kind),
        )
        for kind in sorted(labels, key=lambda kind: kind.name)
    ]


def _one_class_only(inputs: Inputs) -> list[str]:
    members, others = inputs.records.count(True), inputs.records.count(False)
    if bool(members) == bool(others):
        return []
    given, lacking = ("members", "non-members") if members else ("non-members", "members")
    return [f"{given} are given and no {lacking}: records are scored, and nothing can be measured"]


def _fitted_on_samples(inputs: Inputs) -> list[str]:
    """What attacks that combine others are fitted on, where that is not all they may know."""
    known = inputs.records.count(True) + inputs.records.count(False)
    labels = [n.label for n in inputs.attacks if "other_scores" in n.attack.needs]
    if not labels or known <= MAX_FITTED:
        return []
    return [
        f"{', '.join(labels)}: of the {known:,} members and non-members each regression is fitted "
        f"on {MAX_FITTED:,} at most, drawn from those that it does not judge"
    ]
