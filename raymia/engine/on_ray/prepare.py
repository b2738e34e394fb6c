"""Making a reference in a Ray task, on the machine its pool asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from raymia.engine.on_ray.cluster import Cluster, task_options
from raymia.engine.on_ray.failures import own_error
from raymia.engine.on_ray.machines import Machines, demand_of_task
from raymia.evidence.store import EvidenceStore
from raymia.models.source import bring, origins_of
from raymia.plan.planning import Preparation
from raymia.prepare.fine_tune import Progress
from raymia.spec import PoolSpec

MAX_THREADS = 8
"""Small models are slower, not faster, on more threads than this."""


def run_preparation(
    preparation: Preparation,
    target: str,
    pool: PoolSpec,
    *,
    store_url: str,
    cluster: Cluster,
    machines: Machines,
    board: Any,
) -> None:
    """Make a reference; it is in the store when this returns."""
    name, recipe = preparation.stage_name(target), preparation.recipe
    origins = origins_of([recipe.target, recipe.base])

    def make() -> None:
        bring(origins)
        recipe.make(
            EvidenceStore(store_url), pool, lambda doing: reporter(board, f"{doing}: {name}")
        )

    make.__name__ = f"prepare {name}"
    with machines([demand_of_task(name, pool, cluster)]):
        run_task(make, pool, cluster)


def run_task(function: Callable[[], Any], pool: PoolSpec, cluster: Cluster) -> Any:
    """Run a function in a Ray task; see :func:`run_tasks`."""
    return run_tasks([function], pool, cluster)[0]


def run_tasks(
    functions: Sequence[Callable[[], Any]], pool: PoolSpec, cluster: Cluster
) -> list[Any]:
    """Run functions side by side, each in a Ray task of its name that has a machine's CPUs to
    itself, or a pool's CPUs or GPUs.

    Where a pool says how many CPUs it wants, there are as many threads, and one at least: networks
    of a few ten thousand weights are several times slower on two threads than on one.
    """

    def with_threads(function: Callable[[], Any]) -> Any:
        import os

        import torch

        if not torch.cuda.is_available():
            given = os.cpu_count() if pool.cpus is None else int(pool.cpus)
            torch.set_num_threads(min(MAX_THREADS, given or 1))
        return function()

    task = ray.remote(max_retries=2, **task_options(pool, cluster))(with_threads)
    try:
        results: list[Any] = ray.get(
            [task.options(name=function.__name__).remote(function) for function in functions]
        )
    except ray.exceptions.RayError as error:
        raise own_error(error) from error
    return results


def reporter(board: Any, stage: str) -> Progress:
    """A progress callback that writes to the board."""

    def report(done: int, total: int) -> None:
        board.set.remote(stage, done, total)

    return report
