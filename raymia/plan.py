"""What an audit still has to ask of which model, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.inputs import Inputs, NamedAttack
from raymia.models.endpoint import Endpoint
from raymia.models.loaders import CausalLMLoader, EndpointLoader, Loader, MaskFillerLoader
from raymia.models.source import Checkpoint, fingerprint
from raymia.neighbors.mask_fill import MaskFillProbe
from raymia.prepare.self_prompt import SelfPromptRecipe
from raymia.probes.base import Probe, evidence_key
from raymia.probes.text import NeighborProbe, TokenProbe
from raymia.spec import PoolSpec, SelfPromptReference

Role = Literal["neighbors", "target", "reference"]
TOKEN_SAMPLE = 500


@dataclass(frozen=True)
class PlannedProbe:
    """A question, where its answers are stored, and what has no answer yet.

    Attributes
    ----------
    missing : indices to ask about, by record id.
    stored : how many answers there are already.
    """

    probe: Probe
    key: EvidenceKey
    missing: dict[str, list[int]]
    stored: int

    @property
    def asked(self) -> int:
        return sum(len(indices) for indices in self.missing.values())


@dataclass(frozen=True)
class Stage:
    """One model and the questions put to it."""

    name: str
    role: Role
    loader: Loader
    pool: PoolSpec
    probes: tuple[PlannedProbe, ...]

    @property
    def asked(self) -> int:
        return sum(planned.asked for planned in self.probes)

    @property
    def stored(self) -> int:
        return sum(planned.stored for planned in self.probes)

    def key(self, kind: str) -> EvidenceKey | None:
        """The key of the stage's evidence of a kind; None where the kind is not asked for."""
        return next((p.key for p in self.probes if p.key.kind == kind), None)


@dataclass(frozen=True)
class Preparation:
    """A self-prompt reference of one target, and whether it is made."""

    reference: str
    recipe: SelfPromptRecipe
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
    def asked(self) -> int:
        return sum(stage.asked for stage in self.stages)


def plan_audit(inputs: Inputs, store: EvidenceStore) -> list[TargetPlan]:
    """Plan all targets in order; what an earlier target's run will have asked counts as stored."""
    plans: list[TargetPlan] = []
    planned: set[str] = set()
    for name in inputs.targets:
        plan = plan_target(inputs, store, name, planned)
        planned |= {p.key.hash for stage in plan.stages for p in stage.probes}
        plans.append(plan)
    return plans


def plan_target(
    inputs: Inputs, store: EvidenceStore, name: str, planned: Iterable[str] = ()
) -> TargetPlan:
    """Subtract what is stored from what the attacks need.

    Parameters
    ----------
    planned : hashes of keys that will have been answered before this target's turn.
    """
    spec, resources = inputs.spec, inputs.spec.resources
    attacks = inputs.attacks_on(name)
    wants_neighbors = any(a.attack.uses_neighbors for a in attacks)
    maker: MaskFillProbe | None = None
    neighbors_key: EvidenceKey | None = None
    if wants_neighbors and spec.neighbors is not None and inputs.paraphraser is not None:
        maker = MaskFillProbe(spec.neighbors, spec.seed)
        neighbors_key = evidence_key(maker, inputs.paraphraser.fingerprint)
    ids: list[str] = inputs.records.table["record_id"].to_pylist()
    planned = set(planned)

    def stage(
        label: str,
        role: Role,
        checkpoint: Checkpoint | Endpoint,
        pool: PoolSpec,
        with_neighbors: bool,
    ) -> Stage:
        probes: list[Probe] = [TokenProbe()]
        if with_neighbors and maker is not None and neighbors_key is not None:
            probes.append(NeighborProbe(maker.spec.count, neighbors_key.hash))
        loader = _loader(checkpoint, pool)
        return Stage(label, role, loader, pool, tuple(
            _planned(probe, checkpoint.fingerprint, ids, store, planned) for probe in probes
        ))  # fmt: skip

    target = stage(
        f"target:{name}", "target", inputs.targets[name], resources.target, wants_neighbors
    )
    references: dict[str, Stage] = {}
    preparations: list[Preparation] = []
    for reference in _used_references(attacks):
        needs = any(a.attack.uses_neighbors for a in attacks if a.reference == reference)
        kind = spec.references[reference]
        if isinstance(kind, SelfPromptReference):
            preparation = _preparation(inputs, store, reference, kind, name)
            preparations.append(preparation)
            checkpoint = prepared_checkpoint(preparation, store)
            label = f"reference:{preparation.stage_name(name)}"
        else:
            checkpoint, label = inputs.references[reference], f"reference:{reference}"
        references[reference] = stage(label, "reference", checkpoint, resources.reference, needs)
    neighbors = None
    if maker is not None and inputs.paraphraser is not None:
        made = _planned(maker, inputs.paraphraser.fingerprint, ids, store, planned)
        # Neighbors are made only where a model is still to be asked about them.
        wanted = {
            (record, index)
            for s in (target, *references.values())
            for p in s.probes
            if p.probe.subject == "neighbor"
            for record, indices in p.missing.items()
            for index in indices
        }
        missing = {
            record: [i for i in indices if (record, i) in wanted]
            for record, indices in made.missing.items()
        }
        made = replace(made, missing={record: i for record, i in missing.items() if i})
        loader = MaskFillerLoader(inputs.paraphraser, resources.paraphraser.batch_tokens)
        neighbors = Stage("neighbors", "neighbors", loader, resources.paraphraser, (made,))
    return TargetPlan(name, tuple(preparations), neighbors, target, references)


def is_missing_anything(plans: list[TargetPlan]) -> bool:
    """Whether a model has to be asked anything, or a reference made."""
    return any(plan.asked or not all(p.ready for p in plan.preparations) for plan in plans)


def prepared_checkpoint(preparation: Preparation, store: EvidenceStore) -> Checkpoint:
    """The checkpoint of a prepared reference; before it is made, one without any evidence."""
    recipe = preparation.recipe
    if not preparation.ready:
        return replace(recipe.base, fingerprint=f"to be made: {recipe.key}")
    folder = store.prepared_path(recipe.key)
    checkpoint = Checkpoint(**recipe.checkpoint_at(folder))
    return replace(checkpoint, fingerprint=fingerprint(checkpoint))


def _loader(checkpoint: Checkpoint | Endpoint, pool: PoolSpec) -> Loader:
    if isinstance(checkpoint, Endpoint):
        return EndpointLoader(checkpoint, pool.actors)
    return CausalLMLoader(checkpoint, pool.batch_tokens)


def _preparation(
    inputs: Inputs, store: EvidenceStore, name: str, spec: SelfPromptReference, target: str
) -> Preparation:
    writer = inputs.targets[target]
    assert isinstance(writer, Checkpoint), "inputs refuse an endpoint that should write"
    recipe = SelfPromptRecipe(
        target=writer,
        base=inputs.references[spec.base],
        spec=spec,
        prompts=inputs.prompts[name],
        seed=inputs.spec.seed,
    )
    return Preparation(name, recipe, store.prepared_facts(recipe.key) is not None)


def _used_references(attacks: list[NamedAttack]) -> list[str]:
    return list(dict.fromkeys(a.reference for a in attacks if a.reference is not None))


def _planned(
    probe: Probe, model: str, ids: list[str], store: EvidenceStore, planned: set[str]
) -> PlannedProbe:
    key = evidence_key(probe, model)
    indices = probe.indices()
    if key.hash in planned:
        return PlannedProbe(probe, key, {}, len(ids) * len(indices))
    present = store.present(key)
    missing: dict[str, list[int]] = {}
    for record in ids:
        absent = [i for i in indices if (record, i) not in present] if present else list(indices)
        if absent:
            missing[record] = absent
    total = len(ids) * len(indices)
    return PlannedProbe(probe, key, missing, total - sum(map(len, missing.values())))


def stored_neighbors(plan: TargetPlan, store: EvidenceStore) -> dict[tuple[str, int], Any]:
    """Payloads of stored neighbors that the plan's models are still to be asked about."""
    if plan.neighbors is None:
        return {}
    to_make = plan.neighbors.probes[0]
    wanted = {
        (record, index)
        for stage in plan.stages
        for p in stage.probes
        if p.probe.subject == "neighbor"
        for record, indices in p.missing.items()
        for index in indices
    } - {(record, index) for record, indices in to_make.missing.items() for index in indices}
    if not wanted:
        return {}
    table = store.read(to_make.key, columns=["payload"])
    if table is None:
        return {}
    names = ("record_id", "neighbor", "payload")
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return {
        (record, index): payload for record, index, payload in rows if (record, index) in wanted
    }


def tokens_per_record(checkpoint: Checkpoint | Endpoint, texts: pa.ChunkedArray) -> float:
    """Mean tokens per record, cut to the model's limit, from a sample; loads no model.

    NaN for an endpoint, whose tokenizer is not known.
    """
    if isinstance(checkpoint, Endpoint):
        return math.nan
    from transformers import AutoConfig, AutoTokenizer

    from raymia.models.causal_lm import context_length

    tokenizer = AutoTokenizer.from_pretrained(
        checkpoint.path, trust_remote_code=checkpoint.trust_remote_code
    )
    config = AutoConfig.from_pretrained(
        checkpoint.path, trust_remote_code=checkpoint.trust_remote_code
    )
    limits = [checkpoint.max_tokens, context_length(config)]
    limit = min((n for n in limits if n is not None), default=None)
    step = max(1, len(texts) // TOKEN_SAMPLE)
    sample = [texts[i].as_py() for i in range(0, len(texts), step)]
    lengths = [len(ids[:limit]) for ids in tokenizer(sample, verbose=False)["input_ids"]]
    return sum(lengths) / len(lengths)
