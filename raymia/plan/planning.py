"""What an audit still has to ask of which model, and what that costs.

A plan is made once, before anything is asked, and handed on. It looks into the store once for each
key. What changes while the audit runs, references that get made and answers that come in, is put
into plans that are made from it, and these look up again only what can have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import overload

import numpy as np

from raymia.attacks import NamedAttack
from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.checkpoint import AnyCheckpoint
from raymia.neighbors.makers import NeighborMaker
from raymia.plan.missing import Missing
from raymia.plan.pools import loading_order, streams_of
from raymia.plan.stages import (
    PlannedQuestion,
    Preparation,
    Role,
    Stage,
    TargetPlan,
    wanted_neighbors,
)
from raymia.prepare.recipe import Recipe
from raymia.questions.base import Question, evidence_key
from raymia.questions.registry import asks_about_neighbors
from raymia.spec import MadeReference, PoolSpec, ResourcesSpec
from raymia.util.errors import InputError
from raymia.util.memory import hand_back_memory


def plan_audit(inputs: Inputs, store: EvidenceStore) -> AuditPlan:
    """Subtract what is stored from what the attacks need of every target."""
    planner = _Planner(inputs, _Lookup(store, RowIndex(inputs.payloads["record_id"])))
    plan = AuditPlan(planner, tuple(planner.target(name) for name in inputs.targets))
    hand_back_memory()
    return plan


@dataclass(frozen=True, eq=False)
class AuditPlan(Sequence[TargetPlan]):
    """The plans of an audit's targets, in the order of the audit file.

    What several targets ask of one model, each would ask were it alone; in :attr:`targets` the
    first of them asks it, and for the others it counts as shared.
    """

    _planner: _Planner
    _alone: tuple[TargetPlan, ...]

    @property
    def inputs(self) -> Inputs:
        return self._planner.inputs

    @property
    def row_index(self) -> RowIndex:
        """The rows of all that a model may be asked about, by their ids."""
        return self._planner.lookup.records

    @cached_property
    def targets(self) -> tuple[TargetPlan, ...]:
        """The plans in the order of the audit file."""
        return _in_turn(self._alone)

    @cached_property
    def in_loading_order(self) -> tuple[TargetPlan, ...]:
        """The plans as they are asked: see :func:`raymia.plan.pools.loading_order`."""
        order = loading_order(self._alone)
        if order == [plan.name for plan in self._alone]:
            return self.targets
        by_name = {plan.name: plan for plan in self._alone}
        return _in_turn([by_name[name] for name in order])

    @cached_property
    def streams(self) -> list[list[Stage]]:
        """Stages that records pass one after another: see :func:`raymia.plan.pools.streams_of`."""
        return streams_of(self.in_loading_order)

    @property
    def is_missing_anything(self) -> bool:
        """Whether a model has to be asked anything, or a reference made."""
        return any(plan.to_ask or not all(p.ready for p in plan.preparations) for plan in self)

    def without(self, targets: Collection[str]) -> AuditPlan:
        """The same with some targets left out."""
        if not targets:
            return self
        planner = replace(self._planner, inputs=self.inputs.without(targets))
        return AuditPlan(planner, tuple(p for p in self._alone if p.name not in targets))

    def without_reference(self, target: str, reference: str, why: str) -> AuditPlan:
        """The same without the attacks on a target that run with a reference.

        Parameters
        ----------
        why : it cannot be made.
        """
        inputs = self.inputs.without_reference(target, reference, why)
        planner = replace(self._planner, inputs=inputs)
        alone = (planner.target(p.name) if p.name == target else p for p in self._alone)
        return AuditPlan(planner, tuple(alone))

    def with_made_references(self) -> AuditPlan:
        """The same with the references that have been made since; what they were asked is looked
        up, and nothing else."""
        return AuditPlan(self._planner, tuple(self._planner.with_made(p) for p in self._alone))

    def as_it_is_now(self) -> AuditPlan:
        """The same with what has been made and answered since; where nothing was missing, nothing
        is looked up."""
        made = self.with_made_references()
        planner = self._planner.looking_again()
        plan = AuditPlan(planner, tuple(planner.looked_at_again(plan) for plan in made._alone))
        hand_back_memory()
        return plan

    def __len__(self) -> int:
        return len(self.targets)

    @overload
    def __getitem__(self, place: int) -> TargetPlan: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[TargetPlan]: ...

    def __getitem__(self, place: int | slice) -> TargetPlan | Sequence[TargetPlan]:
        return self.targets[place]


def _in_turn(alone: Iterable[TargetPlan]) -> tuple[TargetPlan, ...]:
    """What an earlier target asks is shared by those after it."""
    seen: set[str] = set()
    made: dict[int, Missing] = {}
    plans = []
    for plan in alone:
        target = _not_yet(seen, plan.target)
        references = {name: _not_yet(seen, stage) for name, stage in plan.references.items()}
        makers = []
        for maker in plan.made_first:
            (make,) = maker.questions
            kind = make.question.neighbors_place
            # Neighbors are made only where a model is still to be asked about them.
            wanted = wanted_neighbors((target, *references.values()), kind)
            before = made.get(kind, Missing.nothing(range(0)))
            make = replace(make, missing=make.missing & (wanted - before))
            made[kind] = before | make.missing
            makers.append(replace(maker, questions=(make,)))
        plan = replace(plan, target=target, references=references, made_first=tuple(makers))
        plans.append(plan)
    return tuple(plans)


def _not_yet(seen: set[str], stage: Stage) -> Stage:
    """The stage without questions that were asked; those that it asks are added to ``seen``."""
    questions = tuple(p.without_missing() if p.key.hash in seen else p for p in stage.questions)
    seen.update(p.key.hash for p in stage.questions)
    return replace(stage, questions=questions)


@dataclass(frozen=True, eq=False)
class _Lookup:
    """What the store has no answer to, looked up once for each key."""

    store: EvidenceStore
    records: RowIndex
    _known: dict[tuple[str, range, int], Missing] = field(default_factory=dict)
    _stored: dict[str, set[str]] = field(default_factory=dict)

    def missing(self, key: EvidenceKey, indices: range, count: int) -> Missing:
        """What is missing of the first ``count`` records."""
        if key.kind not in self._stored:
            self._stored[key.kind] = self.store.stored_keys(key.kind)
        is_stored = key.hash in self._stored[key.kind]
        # One set for all keys that nothing is stored under: of many targets there are many.
        place = key.hash if is_stored else "", indices, count
        if place not in self._known:
            cells = np.ones((len(self.records), len(indices)), bool)
            if is_stored:
                cells = ~self.store.present(key, self.records, indices)
            cells[count:] = False
            self._known[place] = Missing.of(self.records.ids, indices, cells)
        return self._known[place]


@dataclass(frozen=True, eq=False)
class _Planner:
    """Plans targets, each as if it were alone."""

    inputs: Inputs
    lookup: _Lookup
    _planned_of: dict[tuple[str, tuple[str, ...], tuple[str, ...]], tuple[PlannedQuestion, ...]] = (
        field(default_factory=dict, init=False)
    )

    def target(self, name: str) -> TargetPlan:
        resources, attacks = self._resources, self.inputs.attacks_on(name)
        made_first = []
        for kind in self._neighbors_of(attacks):
            maker = self._makers[kind]
            make = self._planned("make", maker.question, maker.fingerprint)
            label = f"neighbors:{kind}" if kind else "neighbors"
            model, pool = maker.loader.checkpoint, resources.paraphraser
            pool = pool.without_gpus if model is None else model.pool(pool)
            made_first.append(Stage(label, "neighbors", maker.loader, pool, (make,)))
        target = self._stage(
            f"target:{name}",
            "target",
            self.inputs.targets[name],
            resources.target,
            attacks,
            name,
        )
        used = _used_references(self.inputs, name, attacks)
        preparations = {n: p for n in used if (p := self._preparation(name, n)) is not None}
        references = {n: self._reference(name, n, preparations.get(n)) for n in used}
        return TargetPlan(name, tuple(preparations.values()), tuple(made_first), target, references)

    def with_made(self, plan: TargetPlan) -> TargetPlan:
        """The plan with the references that were to be made, as far as they are."""
        made = {
            p.reference: replace(p, ready=True)
            for p in plan.preparations
            if not p.ready and self._is_made(p.recipe)
        }
        if not made:
            return plan
        references = {n: self._reference(plan.name, n, p) for n, p in made.items()}
        return replace(
            plan,
            preparations=tuple(made.get(p.reference, p) for p in plan.preparations),
            references={**plan.references, **references},
        )

    def looking_again(self) -> _Planner:
        """One that remembers nothing of what the store lacked."""
        return replace(self, lookup=_Lookup(self.lookup.store, self.lookup.records))

    def looked_at_again(self, plan: TargetPlan) -> TargetPlan:
        """The plan with what the store lacks now."""
        return replace(
            plan,
            made_first=tuple(map(self._again, plan.made_first)),
            target=self._again(plan.target),
            references={name: self._again(stage) for name, stage in plan.references.items()},
        )

    def _again(self, stage: Stage) -> Stage:
        if not stage.to_ask:
            return stage
        questions = tuple(
            self._looked_up(p.label, p.question, p.key) if p.missing else p for p in stage.questions
        )
        return replace(stage, questions=questions)

    @cached_property
    def _resources(self) -> ResourcesSpec:
        return self.inputs.spec.resources.as_run

    @cached_property
    def _makers(self) -> Mapping[str, NeighborMaker]:
        """What makes neighbors in stages of their own, by the names of the neighbors; asked for
        where a question is about them."""
        found = self.inputs.modality.neighbor_makers(self.inputs)
        first: dict[str, str] = {}
        for name, maker in found.items():
            other = first.setdefault(evidence_key(maker.question, maker.fingerprint).hash, name)
            if other != name:
                raise InputError(
                    f"neighbors.{name}: they are those of neighbors.{other}, or the first of them; "
                    "leave one of the two out, and to compare counts sweep "
                    f"`neighbors.{other}.count`"
                )
        return found

    def _neighbors_of(self, attacks: Iterable[NamedAttack]) -> tuple[str, ...]:
        """The names of the neighbors that attacks ask about, in the order of the audit file."""
        kind = self.inputs.spec.records.kind
        used = {a.neighbors for a in attacks if asks_about_neighbors(a.attack, kind)}
        return tuple(name for name in self._makers if name in used) if used else ()

    @cached_property
    def _of_population(self) -> set[str]:
        """The questions that are put about the population too: of every model, so that what two
        stages ask of one model is the same question."""
        attacks = [a.attack for a in self.inputs.attacks if "population" in a.attack.needs]
        return {question for attack in attacks for question in attack.asks}

    def _preparation(self, target: str, reference: str) -> Preparation | None:
        """How a reference is made that the target has a part in; None for another."""
        if not isinstance(self.inputs.spec.references[reference], MadeReference):
            return None
        recipe = self.inputs.modality.recipe(self.inputs, reference, target)
        return Preparation(reference, recipe, self._is_made(recipe))

    def _is_made(self, recipe: Recipe) -> bool:
        return self.lookup.store.prepared_facts(recipe.key) is not None

    def _reference(self, target: str, name: str, preparation: Preparation | None) -> Stage:
        inputs = self.inputs
        asking = [
            a
            for a in inputs.attacks_on(target)
            if a.reference == name
            or (inputs.shows_shadows(a.attack) and name in inputs.shadow_members)
        ]
        pool = self._resources.reference
        if preparation is None:
            checkpoint = inputs.modality.reference_for(inputs, name, target)
            if checkpoint is not inputs.references[name]:
                own = f"reference:{name}:{target}"
                return self._stage(own, "reference", checkpoint, pool, asking, target)
            return self._stage(f"reference:{name}", "reference", checkpoint, pool, asking, None)
        recipe = preparation.recipe
        place = self.lookup.store.prepared_path(recipe.key) if preparation.ready else None
        label = f"reference:{preparation.stage_name(target)}"
        checkpoint = recipe.finished(place)
        return self._stage(label, "reference", checkpoint, pool, asking, target)

    def _stage(
        self,
        label: str,
        role: Role,
        checkpoint: AnyCheckpoint,
        pool: PoolSpec,
        attacks: Sequence[NamedAttack],
        only_for: str | None,
    ) -> Stage:
        asks = tuple(dict.fromkeys(question for a in attacks for question in a.attack.asks))
        content = checkpoint.fingerprint, asks, self._neighbors_of(attacks)
        if content not in self._planned_of:
            self._planned_of[content] = self._plan_questions(checkpoint, asks, content[2])
        pool = checkpoint.pool(pool)
        loader = checkpoint.loader(pool)
        return Stage(label, role, loader, pool, self._planned_of[content], only_for)

    def _plan_questions(
        self, checkpoint: AnyCheckpoint, asks: tuple[str, ...], neighbors: tuple[str, ...]
    ) -> tuple[PlannedQuestion, ...]:
        made = {}
        for name in neighbors:
            maker = self._makers[name]
            key = evidence_key(maker.question, maker.fingerprint)
            question = maker.question
            made[name] = (len(question.indices()), key.hash, question.neighbors_place)
        return tuple(
            self._planned(label, question, checkpoint.fingerprint)
            for label, question in self.inputs.modality.questions(
                self.inputs, asks, checkpoint, made
            )
        )

    def _planned(self, label: str, question: Question, model: str) -> PlannedQuestion:
        return self._looked_up(label, question, evidence_key(question, model))

    def _looked_up(self, label: str, question: Question, key: EvidenceKey) -> PlannedQuestion:
        of_population = not question.makes_neighbors and bool(question.names & self._of_population)
        count = len(self.lookup.records) if of_population else self.inputs.records.table.num_rows
        indices = question.indices()
        missing = self.lookup.missing(key, indices, count)
        stored = count * len(indices) - missing.count
        return PlannedQuestion(label, question, key, missing, stored, of_population=of_population)


def failed_with(plans: Sequence[TargetPlan], failed: Mapping[str, str]) -> dict[str, str]:
    """Targets that lack evidence because another, which was to give it, has failed.

    Targets of equal content, and a target that is also a reference, are asked once.

    Parameters
    ----------
    failed : why, by target.
    """
    # Of targets that share a key, the plan says of the first alone that its answers are missing.
    missing = {
        planned.key.hash
        for plan in plans
        for stage in plan.stages
        for planned in stage.questions
        if planned.missing
    }
    lacking = {
        planned.key.hash: plan.name
        for plan in plans
        if plan.name in failed
        for stage in plan.stages
        if stage.only_for is not None
        for planned in stage.questions
        if planned.key.hash in missing
    }
    found = {}
    for plan in plans:
        keys = [planned.key.hash for stage in plan.stages for planned in stage.questions]
        cause = next((lacking[key] for key in keys if key in lacking), None)
        if plan.name not in failed and cause is not None:
            found[plan.name] = f"it needs what {cause} failed to answer: {failed[cause]}"
    return found


def _used_references(inputs: Inputs, target: str, attacks: list[NamedAttack]) -> list[str]:
    used = [a.reference for a in attacks if a.reference is not None]
    if any(inputs.shows_shadows(a.attack) for a in attacks):
        used += inputs.shadow_members
    generates = not inputs.targets[target].capabilities.why_not({"generation"})
    if generates and any("generated_images" in a.attack.needs for a in attacks):
        specs = inputs.spec.references
        used += [n for n, kind in specs.items() if isinstance(kind, MadeReference)]
    return list(dict.fromkeys(used))
