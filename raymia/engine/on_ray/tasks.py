"""Functions in Ray tasks, each on a machine of a pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from raymia.engine.on_ray.cluster import Cluster, hide_gpus, task_options
from raymia.engine.on_ray.failures import own_error
from raymia.engine.prepare import training_threads
from raymia.spec import PoolSpec


def run_tasks(
    functions: Sequence[Callable[[], Any]], pool: PoolSpec, cluster: Cluster
) -> list[Any]:
    """Run functions side by side, each in a Ray task of its name that has a machine's CPUs to
    itself, or a pool's CPUs or GPUs."""

    def with_threads(function: Callable[[], Any]) -> Any:
        if not pool.gpus:
            hide_gpus()
        import torch

        if not torch.cuda.is_available():
            torch.set_num_threads(training_threads(pool))
        return function()

    # A process that was let see no GPU would find none for the next task either.
    task = ray.remote(max_retries=2, max_calls=1, **task_options(pool, cluster))(with_threads)
    try:
        results: list[Any] = ray.get(
            [task.options(name=function.__name__).remote(function) for function in functions]
        )
    except ray.exceptions.RayError as error:
        raise own_error(error) from error
    return results
