"""What an audit will take: time, GPU-hours, memory and money, from rates that were measured."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from raymia.draws import stream_key
from raymia.engine.pools import in_loading_order, pools_of, streams_of
from raymia.errors import RaymiaError
from raymia.evidence.store import EvidenceStore
from raymia.inputs import Inputs
from raymia.models.memory import Memory, memory_of
from raymia.plan import Preparation, Stage, TargetPlan, plan_audit
from raymia.rates import (
    Rates,
    architecture,
    items_and_steps,
    mean_size,
    preparation_keys,
    stage_key,
)
from raymia.records import RecordSet
from raymia.spec import CostsSpec, PoolSpec, SelfGeneratedReference, SelfPromptReference

CPU = "CPU"
CALIBRATION_STEPS = 32
"""Optimizer steps for which references are trained where it is only measured how long they take."""


@dataclass(frozen=True)
class StageEstimate:
    """What one stage, or one preparation of a reference, will take.

    Attributes
    ----------
    seconds : of one actor, all questions together; None where no run has measured it.
    memory : of one actor; None where the files do not say.
    pool : where it runs.
    actors : how many share the work.
    """

    name: str
    asked: int
    seconds: float | None
    memory: Memory | None
    pool: PoolSpec
    actors: int

    @property
    def fits(self) -> bool | None:
        """Whether an actor fits its GPU, where both are known."""
        if self.memory is None:
            return None
        return self.memory.fits(self.pool.accelerator_type, self.pool.gpus)

    @property
    def gpu_hours(self) -> float | None:
        return None if self.seconds is None else self.seconds * self.pool.gpus / 3600


@dataclass(frozen=True)
class Estimate:
    """What an audit will take.

    Attributes
    ----------
    preparations, stages : in order; a stage that targets share comes once.
    wall_seconds : all streams one after another, though a cluster may have room for several; None
        where a rate is not known. Starting Ray and loading models are not in it.
    cost : of the actors' machines for as long as they are held; None without prices.
    """

    preparations: list[StageEstimate]
    stages: list[StageEstimate]
    wall_seconds: float | None
    cost: float | None

    @property
    def gpu_hours(self) -> float | None:
        """Of busy actors; None where a rate is not known."""
        return _total([part.gpu_hours for part in (*self.preparations, *self.stages)])


def estimate(inputs: Inputs, plans: Sequence[TargetPlan], store: EvidenceStore) -> Estimate:
    """Estimate what is left of an audit.

    The rates are those that runs on this store have measured; :func:`calibrate` measures them.
    """
    rates, size = Rates(store), mean_size(inputs)
    reference = inputs.spec.resources.reference

    def of_stage(stage: Stage) -> StageEstimate:
        rate = rates.get(stage_key(stage)) if stage.asked else None
        known = None if rate is None else rate.at(size) * stage.asked
        if not stage.asked:
            known = 0.0
        images = inputs.shape is not None
        batch = stage.pool.batch_images if images else stage.pool.batch_tokens
        memory = memory_of(stage.loader.checkpoint, batch)
        return StageEstimate(stage.name, stage.asked, known, memory, stage.pool, stage.pool.actors)

    def of_preparation(plan: TargetPlan, preparation: Preparation) -> StageEstimate:
        items, steps = items_and_steps(preparation)
        found = [rates.get(key) for key in preparation_keys(preparation, reference)]
        seconds = _total([
            None if rate is None else rate.seconds * count
            for rate, count in zip(found, (items, steps), strict=True)
        ])  # fmt: skip
        name = f"prepare {preparation.stage_name(plan.name)}"
        return StageEstimate(name, items + steps, seconds, None, reference, 1)

    preparations = [
        of_preparation(plan, preparation)
        for plan in plans for preparation in plan.preparations if not preparation.ready
    ]  # fmt: skip
    once = {stage.name: stage for plan in plans for stage in plan.stages}
    stages = {name: of_stage(stage) for name, stage in once.items()}
    walls = [part.seconds for part in preparations]
    costs = [_cost([p], p.seconds, inputs.spec.costs) for p in preparations]
    for stream in streams_of(in_loading_order(inputs, store)):
        pools = [[stages[s.name] for s in pool.stages] for pool in pools_of(stream)]
        busy = [_over(_total([s.seconds for s in pool]), pool) for pool in pools]
        wall = None if None in busy else max((b for b in busy if b is not None), default=0.0)
        walls.append(wall)
        largest = [max(pool, key=lambda s: s.actors) for pool in pools]
        costs.append(_cost(largest, wall, inputs.spec.costs))
    return Estimate(preparations, list(stages.values()), _total(walls), _total(costs))


def calibrate(inputs: Inputs, store: EvidenceStore, records: int, console: Console) -> None:
    """Measure the rates on a part of the records; what is answered is thrown away.

    Of targets of one architecture one is asked. References are made of as few texts or images and
    steps as tell how long they take.

    Parameters
    ----------
    records : how many are asked about, and how many texts or images a target writes at least.

    Raises
    ------
    RaymiaError
        If a target failed, so that not all rates were measured.
    """
    from raymia.engine.run import ask_models

    name = f"calibration-{uuid.uuid4().hex[:12]}"
    url = f"{store.folder.url.rstrip('/')}/{name}"
    small = _smaller(inputs, records)
    try:
        scratch = EvidenceStore(url)
        plans = plan_audit(small, scratch)
        work = ask_models(small, scratch, url, console)
        Rates(store).keep_run(small, plans, work.lines, scratch)
        if work.failed:
            raise RaymiaError(
                "not all was measured: "
                + "; ".join(f"target {name}: {why}" for name, why in work.failed.items())
            )
    finally:
        place = store.folder.path(name)
        if store.folder.fs.exists(place):
            store.folder.fs.rm(place, recursive=True)


def _smaller(inputs: Inputs, records: int) -> Inputs:
    """The same audit on fewer records, with smaller references and one target per architecture."""
    table = inputs.records.table
    ids = inputs.records.ids
    order = sorted(range(len(ids)), key=lambda n: stream_key("calibration", ids[n]))
    kept = table.take(sorted(order[:records]))
    references = {}
    for name, spec in inputs.spec.references.items():
        changed = spec
        if isinstance(spec, SelfPromptReference):
            # What is written side by side is as fast as in the audit in whole batches alone.
            texts = min(spec.texts, max(records, spec.generation_batch))
            steps = math.ceil(texts / spec.fine_tune.batch_size)
            tune = {"epochs": min(spec.fine_tune.epochs, max(1, CALIBRATION_STEPS // steps))}
            changed = spec.model_copy(update={
                "texts": texts,
                "fine_tune": spec.fine_tune.model_copy(update=tune),
            })  # fmt: skip
        elif isinstance(spec, SelfGeneratedReference):
            steps = min(spec.training.steps, CALIBRATION_STEPS)
            few = {"steps": steps, "warmup": min(spec.training.warmup, steps - 1)}
            changed = spec.model_copy(update={
                "images": min(spec.images, max(records, spec.generation_batch)),
                "training": spec.training.model_copy(update=few),
            })  # fmt: skip
        references[name] = changed
    seen: dict[str, str] = {}
    for name, target in inputs.targets.items():
        seen.setdefault(repr(architecture(target)), name)
    return replace(
        inputs,
        spec=inputs.spec.model_copy(update={"references": references}),
        records=RecordSet(kept, inputs.records.set_aside),
        population=dict(list(inputs.population.items())[:records]),
    ).only(seen.values())


def _over(seconds: float | None, pool: Sequence[StageEstimate]) -> float | None:
    return None if seconds is None else seconds / max(stage.actors for stage in pool)


def _cost(
    pools: Sequence[StageEstimate], wall: float | None, costs: CostsSpec | None
) -> float | None:
    """Of machines that are held for some seconds."""
    if wall is None or costs is None:
        return None
    total = 0.0
    for pool in pools:
        kind = pool.pool.accelerator_type or CPU
        share = (pool.pool.gpus if pool.pool.gpus else 1.0) * pool.actors
        price = costs.per_hour.get(kind)
        if price is None:
            return None
        total += price * share * wall / 3600
    return total


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
