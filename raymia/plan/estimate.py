"""What an audit will take: time, GPU-hours, memory and money, from rates that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.memory import Memory
from raymia.plan.blocks import BlockSize, BlockSizes
from raymia.plan.planning import AuditPlan
from raymia.plan.pools import pools_of
from raymia.plan.rates import Rates, preparation_keys, stage_key
from raymia.plan.stages import Preparation, Stage, TargetPlan
from raymia.spec import CostsSpec, PoolSpec
from raymia.util.once import Once

CPU = "CPU"


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
    to_ask: int
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
class AuditEstimate:
    """What an audit will take.

    Attributes
    ----------
    preparations, stages : in order; a stage that targets share comes once.
    wall_seconds : all streams one after another, though a cluster may have room for several; None
        where a rate is not known. Starting Ray and loading models are not in it.
    cost : of the actors' machines for as long as they are held; None without prices, or where it
        is not known which machine a pool with GPUs is on.
    blocks : what a block is, of each stream that asks something.
    """

    preparations: list[StageEstimate]
    stages: list[StageEstimate]
    wall_seconds: float | None
    cost: float | None
    blocks: list[BlockSize]

    @property
    def gpu_hours(self) -> float | None:
        """Of busy actors; None where a rate is not known."""
        return _total([part.gpu_hours for part in (*self.preparations, *self.stages)])


def estimate(inputs: Inputs, plans: AuditPlan, store: EvidenceStore) -> AuditEstimate:
    """Estimate what is left of an audit.

    The rates are those that runs on this store have measured; :func:`calibrate` measures them.
    """
    rates, size = Rates(store), inputs.modality.mean_size(inputs.records)
    seen = Once()
    resources = inputs.spec.resources.as_run
    reference = resources.reference

    def of_stage(stage: Stage) -> StageEstimate:
        rate = seen(rates.get, stage_key(stage, seen)) if stage.to_ask else None
        known = None if rate is None else rate.at(size) * stage.to_ask
        if not stage.to_ask:
            known = 0.0
        memory, pool = stage.loader.memory(seen), stage.pool
        return StageEstimate(stage.name, stage.to_ask, known, memory, pool, pool.actors)

    def of_preparation(plan: TargetPlan, preparation: Preparation) -> StageEstimate:
        items, steps = preparation.recipe.items, preparation.recipe.steps
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
    stages = _together(of_stage(stage) for stream in plans.streams for stage in stream)
    walls = [part.seconds for part in preparations]
    costs = [_cost([p], p.seconds, inputs.spec.costs) for p in preparations]
    for stream in plans.streams:
        pools = [[of_stage(stage) for stage in pool.stages] for pool in pools_of(stream)]
        if resources.engine == "local":  # one process asks all models, one after another
            pools = [[stage for pool in pools for stage in pool]] if pools else []
        busy = [_over(_total([s.seconds for s in pool]), pool) for pool in pools]
        wall = None if None in busy else max((b for b in busy if b is not None), default=0.0)
        walls.append(wall)
        largest = [max(pool, key=lambda s: (s.actors, s.pool.gpus)) for pool in pools]
        costs.append(_cost(largest, wall, inputs.spec.costs))
    sizes = BlockSizes(inputs, plans.streams, store)
    blocks = [sizes.of(stream) for stream in plans.streams if pools_of(stream)]
    return AuditEstimate(preparations, stages, _total(walls), _total(costs), blocks)


def _together(found: Iterable[StageEstimate]) -> list[StageEstimate]:
    """Stages that targets share once, with all that any of the targets has left to ask."""
    by_name: dict[str, StageEstimate] = {}
    for one in found:
        first = by_name.get(one.name)
        if first is not None:
            seconds = _total([first.seconds, one.seconds])
            one = replace(first, to_ask=first.to_ask + one.to_ask, seconds=seconds)
        by_name[one.name] = one
    return list(by_name.values())


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
        kind = pool.pool.accelerator_type or ("" if pool.pool.gpus else CPU)
        share = (pool.pool.gpus if pool.pool.gpus else 1.0) * pool.actors
        price = costs.per_hour.get(kind)
        if price is None:
            return None
        total += price * share * wall / 3600
    return total


def _total(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None
