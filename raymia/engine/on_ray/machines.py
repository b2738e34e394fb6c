"""From the pools of a plan to the machines they run on: refused, asked for, waited for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from raymia.engine.on_ray.autoscaler import (
    POLL_SECONDS,
    other_kinds,
    present,
    requested,
    say,
    wait_for,
)
from raymia.engine.on_ray.capacity import Demand, shortages
from raymia.engine.on_ray.cluster import Cluster, pool_options, task_options
from raymia.inputs.base import Inputs
from raymia.plan.blocks import BlockSizes
from raymia.plan.pools import Pool, pools_of
from raymia.spec import PoolSpec
from raymia.util.errors import InputError

if TYPE_CHECKING:
    from raymia.plan.planning import AuditPlan

Machines = Callable[[Sequence[Demand]], AbstractContextManager[None]]
"""What :func:`machines_for` is when a run has bound it to its cluster."""

GRACE_SECONDS = 10.0
"""How long a machine that no autoscaler starts is waited for; it may be about to join."""


def demands_of(pools: Sequence[Pool], blocks: int, cluster: Cluster) -> list[Demand]:
    """What pools that run at the same time ask for; a pool has no more actors than blocks."""
    actors = sum(pool.spec.actors for pool in pools)
    return [
        Demand.of(
            pool.name,
            min(pool.spec.actors, blocks),
            min(pool.spec.max_actors or pool.spec.actors, blocks),
            pool_options(pool.spec, actors, cluster),
        )
        for pool in pools
    ]


def max_blocks(inputs: Inputs, sizes: BlockSizes) -> int:
    """Blocks of a stream that asks about every record."""
    return math.ceil(len(inputs.payloads) / sizes.smallest())


def demand_of_tasks(name: str, most: int, pool: PoolSpec, cluster: Cluster) -> Demand:
    """What making references asks for: one at a time will do."""
    return Demand.of(name, 1, most, task_options(pool, cluster))


def one_cpu(name: str) -> Demand:
    """What steps that ask no model need to begin; where more of them wait, Ray asks for more."""
    return Demand(name, 1, 1, {"CPU": 1.0}, {})


def refuse_impossible(plan: AuditPlan, sizes: BlockSizes, cluster: Cluster) -> None:
    """Refuse an audit that the cluster can never hold, as far as the cluster says what it can.

    Raises
    ------
    InputError
        Naming the pools and what is missing.
    """
    resources, blocks = plan.inputs.spec.resources, max_blocks(plan.inputs, sizes)
    steps = [demands_of(pools_of(stages), blocks, cluster) for stages in plan.streams]
    steps += [
        [demand_of_tasks(preparation.stage_name(target.name), 1, resources.reference, cluster)]
        for target in plan
        for preparation in target.preparations
    ]
    refuse(steps, cluster)


def refuse(steps: Sequence[Sequence[Demand]], cluster: Cluster) -> None:
    """Refuse what the cluster can never hold, as :func:`refuse_impossible` does.

    Parameters
    ----------
    steps : what is asked for at the same time, of each step.
    """
    if cluster.startable is None:
        return
    joins_alone = not cluster.is_local and not cluster.startable
    deadline = time.monotonic() + (GRACE_SECONDS if joins_alone else 0)
    while lacking := [line for step in steps for line in shortages(step, cluster.machines)]:
        if time.monotonic() >= deadline:
            raise InputError([f"resources: {line}" for line in dict.fromkeys(lacking)])
        time.sleep(POLL_SECONDS)


@contextmanager
def machines_for(
    demands: Sequence[Demand], cluster: Cluster, console: Console, wait_minutes: float
) -> Iterator[None]:
    """Run a block when the cluster's autoscaler has started the machines for it.

    See :mod:`raymia.engine.on_ray.autoscaler`; without one, nothing is waited for.

    Raises
    ------
    InputError
        Where the autoscaler says that it cannot start what it was asked for.
    RaymiaError
        Where no machine came up in time.
    """
    if cluster.startable == ():
        yield
        return
    for demand in demands:
        others = other_kinds(demand, cluster.startable or ())
        if others:
            say(
                console,
                f"{demand.name} is placed by labels, which this cluster's autoscaler does not "
                f"know: it may start {', '.join(others)} for it; give accelerator_type or a custom "
                "resource too",
            )
    lacking = shortages(demands, present())
    if lacking:
        say(console, f"asking for machines: {lacking[0]}")
    with requested(demands):
        wait_for(demands, console, 60 * wait_minutes)
        yield
