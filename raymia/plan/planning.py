"""What an audit still has to ask of which model, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Literal

import numpy as np
import pyarrow as pa

from raymia.attacks import Attack, NamedAttack
from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.loaders import Loader
from raymia.neighbors.makers import NeighborMaker
from raymia.plan.missing import Missing
from raymia.prepare.recipe import Recipe
from raymia.questions.base import Question, evidence_key
from raymia.questions.registry import asks_about_neighbors
from raymia.spec import MadeReference, PoolSpec

Role = Literal["neighbors", "target", "reference"]


@dataclass(frozen=True)
class PlannedProbe:
    """A question, where its answers are stored, and what has no answer yet.

    Attributes
    ----------
    question : its name among the questions of :mod:`raymia.questions`; "make" for neighbors.
    missing : what to ask about, of all records and of the population, in the order of
        :attr:`raymia.inputs.Inputs.payloads`.
    stored : how many answers there are already.
    """

    question: str
    probe: Question
    key: EvidenceKey
    missing: Missing
    stored: int

    @property
    def to_ask(self) -> int:
        return self.missing.count


@dataclass(frozen=True)
class Stage:
    """One model and the questions put to it.

    Attributes
    ----------
    only_for : the one target that the model matters to; None for a model that targets share.
    """

    name: str
    role: Role
    loader: Loader
    pool: PoolSpec
    probes: tuple[PlannedProbe, ...]
    only_for: str | None = None

    @property
    def to_ask(self) -> int:
        return sum(planned.to_ask for planned in self.probes)

    @property
    def stored(self) -> int:
        return sum(planned.stored for planned in self.probes)


@dataclass(frozen=True)
class Preparation:
    """A reference that one target has a part in, and whether it is made."""

    reference: str
    recipe: Recipe
    ready: bool

    def stage_name(self, target: str) -> str:
        return f"{self.reference}:{target}"


@dataclass(frozen=True)
class TargetPlan:
    """What one target's audit consists of.

    Attributes
    ----------
    preparations : references that are made from the target.
    neighbors : the stage that makes neighbors, where attacks need them.
    target : the stage of the checkpoint under audit.
    references : the stages of the references, by name. One whose preparation is not ready has a key
        that nothing is stored under.
    """

    name: str
    preparations: tuple[Preparation, ...]
    neighbors: Stage | None
    target: Stage
    references: dict[str, Stage]

    @property
    def stages(self) -> list[Stage]:
        """In the order in which a block of records passes them."""
        first = [self.neighbors] if self.neighbors else []
        return [*first, self.target, *self.references.values()]

    @property
    def to_ask(self) -> int:
        return sum(stage.to_ask for stage in self.stages)


def plan_audit(inputs: Inputs, store: EvidenceStore) -> list[TargetPlan]:
    """Plan all targets in order; what an earlier target's run will have asked counts as stored."""
    records = RowIndex(inputs.payloads["record_id"])
    plans: list[TargetPlan] = []
    for name in inputs.targets:
        plans.append(plan_target(inputs, store, name, plans, records))
    return plans


def plan_target(
    inputs: Inputs,
    store: EvidenceStore,
    name: str,
    earlier: Sequence[TargetPlan] = (),
    records: RowIndex | None = None,
) -> TargetPlan:
    """Subtract what is stored from what the attacks need.

    Parameters
    ----------
    earlier : plans of targets that will have been run before this one.
    records : of all that a model may be asked about; it is made where it is not given.
    """
    found = RowIndex(inputs.payloads["record_id"]) if records is None else records
    spec, resources = inputs.spec, inputs.spec.resources
    attacks = inputs.attacks_on(name)
    maker: NeighborMaker | None = None
    neighbors_made: tuple[int, str] | None = None
    if any(asks_about_neighbors(a.attack, spec.records.kind) for a in attacks):
        maker = inputs.modality.neighbor_maker(inputs)
    if maker is not None:
        key = evidence_key(maker.probe, maker.fingerprint)
        neighbors_made = (maker.probe.spec.count, key.hash)
    own = inputs.records.table.num_rows
    # The same for every model, so that what two stages ask of one model is the same question.
    of_population = {
        q for a in inputs.attacks if "population" in a.attack.needs for q in a.attack.asks
    }
    planned = {
        p.key.hash
        for plan in earlier
        for before in (plan.target, *plan.references.values())
        for p in before.probes
    }

    def stage(
        label: str,
        role: Role,
        checkpoint: AnyCheckpoint,
        pool: PoolSpec,
        attacks: list[Attack],
        only_for: str | None,
    ) -> Stage:
        probes = []
        asks = [q for attack in attacks for q in attack.asks]
        for question, probe in inputs.modality.questions(inputs, asks, checkpoint, neighbors_made):
            asked = len(found) if probe.names & of_population else own
            model = checkpoint.fingerprint
            probes.append(_planned(question, probe, model, found, asked, store, planned))
        planned.update(p.key.hash for p in probes)
        loader = inputs.modality.loader(checkpoint, pool)
        return Stage(label, role, loader, pool, tuple(probes), only_for)

    target = stage(
        f"target:{name}",
        "target",
        inputs.targets[name],
        resources.target,
        [a.attack for a in attacks],
        name,
    )
    references: dict[str, Stage] = {}
    preparations: list[Preparation] = []
    for reference in _used_references(inputs, attacks):
        asking = [
            a.attack
            for a in attacks
            if a.reference == reference
            or (inputs.shows_shadows(a.attack) and reference in inputs.shadow_members)
        ]
        only_for: str | None
        if isinstance(spec.references[reference], MadeReference):
            recipe = inputs.modality.recipe(inputs, reference, name)
            ready = store.prepared_facts(recipe.key) is not None
            preparation = Preparation(reference, recipe, ready)
            preparations.append(preparation)
            checkpoint: AnyCheckpoint = prepared_checkpoint(preparation, store)
            label, only_for = f"reference:{preparation.stage_name(name)}", name
        else:
            checkpoint, label = inputs.references[reference], f"reference:{reference}"
            only_for = None
        references[reference] = stage(
            label, "reference", checkpoint, resources.reference, asking, only_for
        )
    neighbors = None
    if maker is not None:
        made = _planned("make", maker.probe, maker.fingerprint, found, own, store, set())
        # Neighbors are made only where a model is still to be asked about them.
        wanted = _wanted_neighbors((target, *references.values()))
        for plan in earlier:
            if plan.neighbors is not None:
                wanted -= plan.neighbors.probes[0].missing
        made = replace(made, missing=made.missing & wanted)
        neighbors = Stage("neighbors", "neighbors", maker.loader, resources.paraphraser, (made,))
    return TargetPlan(name, tuple(preparations), neighbors, target, references)


def is_missing_anything(plans: list[TargetPlan]) -> bool:
    """Whether a model has to be asked anything, or a reference made."""
    return any(plan.to_ask or not all(p.ready for p in plan.preparations) for plan in plans)


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
        for planned in stage.probes
        if planned.missing
    }
    lacking = {
        planned.key.hash: plan.name
        for plan in plans
        if plan.name in failed
        for stage in plan.stages
        if stage.only_for is not None
        for planned in stage.probes
        if planned.key.hash in missing
    }
    found = {}
    for plan in plans:
        keys = [planned.key.hash for stage in plan.stages for planned in stage.probes]
        cause = next((lacking[key] for key in keys if key in lacking), None)
        if plan.name not in failed and cause is not None:
            found[plan.name] = f"it needs what {cause} failed to answer: {failed[cause]}"
    return found


def prepared_checkpoint(preparation: Preparation, store: EvidenceStore) -> AnyCheckpoint:
    """The checkpoint of a prepared reference; before it is made, one without any evidence."""
    recipe = preparation.recipe
    return recipe.finished(store.prepared_path(recipe.key) if preparation.ready else None)


def _used_references(inputs: Inputs, attacks: list[NamedAttack]) -> list[str]:
    used = [a.reference for a in attacks if a.reference is not None]
    if any(inputs.shows_shadows(a.attack) for a in attacks):
        used += inputs.shadow_members
    if any("generated_images" in a.attack.needs for a in attacks):
        specs = inputs.spec.references
        used += [n for n, kind in specs.items() if isinstance(kind, MadeReference)]
    return list(dict.fromkeys(used))


def _planned(
    question: str,
    probe: Question,
    model: str,
    records: RowIndex,
    asked: int,
    store: EvidenceStore,
    planned: set[str],
) -> PlannedProbe:
    """Look up what is stored about the first ``asked`` records."""
    key, indices = evidence_key(probe, model), probe.indices()
    missing = Missing.nothing(indices)
    if key.hash not in planned:
        cells = ~store.present(key, records, indices)
        cells[asked:] = False
        missing = Missing.of(records.ids, indices, cells)
    return PlannedProbe(question, probe, key, missing, asked * len(indices) - missing.count)


def _wanted_neighbors(stages: Iterable[Stage]) -> Missing:
    """The neighbors that models are still to be asked about."""
    probes = (p for stage in stages for p in stage.probes if p.probe.subject == "neighbor")
    return reduce(or_, (p.missing for p in probes), Missing.nothing(range(0)))


def stored_neighbors(stages: Sequence[Stage], store: EvidenceStore) -> Iterator[pa.Table]:
    """Read stored neighbors that the stages' models are still to be asked about.

    Parameters
    ----------
    stages : of one stream, that of the neighbors among them where there is one.

    Yields
    ------
    Tables of ``row`` (int64), the record's among :attr:`raymia.inputs.Inputs.payloads`,
    ``neighbor`` (int16) and ``payload`` (large string), in which each neighbor comes once.
    """
    makers = [p for stage in stages for p in stage.probes if p.probe.makes_neighbors]
    wanted = _wanted_neighbors(stages)
    for maker in makers:
        wanted -= maker.missing
    if not wanted or not makers:
        return
    records, left = RowIndex(wanted.ids), wanted.cells.copy()
    for table in store.parts(makers[0].key, ["payload"]):
        picked, rows, columns = records.cells_of(table, wanted.indices)
        _, first = np.unique(rows * len(wanted.indices) + columns, return_index=True)
        new = first[left[rows[first], columns[first]]]
        left[rows[new], columns[new]] = False
        if new.size:
            yield pa.table(
                {
                    "row": rows[new],
                    "neighbor": (columns[new] + wanted.indices.start).astype(np.int16),
                    # Offsets of 64 bits: many of them may be put together.
                    "payload": table["payload"].take(pa.array(picked[new])).cast(pa.large_string()),
                }
            )
