"""Functions in Ray tasks, each on a machine of a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

from raymia.engine.on_ray.cluster import Cluster, hide_gpus, task_options
from raymia.engine.on_ray.failures import own_error
from raymia.engine.prepare import training_threads
from raymia.spec import PoolSpec
from raymia.util.errors import RaymiaError


def run_tasks(
    functions: Sequence[Callable[[], Any]], pool: PoolSpec, cluster: Cluster
) -> list[Any]:
    """Run functions side by side, each in a Ray task of its name that has a pool's CPUs or GPUs to
    itself.

    Raises
    ------
    RaymiaError
        As soon as one fails.
    """
    results: list[Any] = [None] * len(functions)
    for place, outcome in outcomes(functions, pool, cluster, len(functions)):
        if isinstance(outcome, RaymiaError):
            raise outcome
        results[place] = outcome
    return results


def outcomes(
    functions: Sequence[Callable[[], Any]], pool: PoolSpec, cluster: Cluster, at_once: int
) -> Iterator[tuple[int, Any]]:
    """The same, so many at a time: the place of each as it ends, and its result, or its error."""

    def with_threads(function: Callable[[], Any]) -> Any:
        if not pool.gpus:
            hide_gpus()
        import torch

        if not torch.cuda.is_available():
            torch.set_num_threads(training_threads(pool))
        return function()

    # A process that was let see no GPU would find none for the next task either.
    task = ray.remote(max_retries=2, max_calls=1, **task_options(pool, cluster))(with_threads)
    waiting = list(enumerate(functions))[::-1]
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < at_once:
            place, function = waiting.pop()
            running[task.options(name=function.__name__).remote(function)] = place
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        try:
            yield running[ended], ray.get(ended)
        except ray.exceptions.RayError as error:
            yield running[ended], own_error(error)
        del running[ended]
