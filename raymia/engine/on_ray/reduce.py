"""The steps of a reduction as Ray tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray

from raymia.engine.board import Board
from raymia.engine.on_ray.failures import own_error
from raymia.engine.on_ray.machines import Machines, one_cpu

Found = TypeVar("Found")
RETRIES = 2
"""Times that a step is run again whose process or machine died."""


@dataclass(frozen=True)
class Tasks:
    """Runs each job of a step as a task with a CPU of its own.

    What jobs share is put into the object store once, also where several steps share it. A job is
    small, and so is what comes back: evidence and scores are read and written where the task runs.

    Attributes
    ----------
    machines : waits for a machine with a CPU, where the cluster has none left.
    """

    board: Board
    machines: Machines
    _put: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def map(
        self,
        what: str,
        step: Callable[..., Found],
        shared: tuple[Any, ...],
        jobs: Sequence[tuple[Any, ...]],
    ) -> list[Found]:
        """See :class:`raymia.scoring.workers.Workers`."""
        with self.machines([one_cpu(what)]):
            return self._map(what, step, shared, jobs)

    def _map(
        self,
        what: str,
        step: Callable[..., Found],
        shared: tuple[Any, ...],
        jobs: Sequence[tuple[Any, ...]],
    ) -> list[Found]:
        given = [self._reference(value) for value in shared]

        size = len(given)

        def run(*arguments: Any) -> Found:
            return step(arguments[:size], *arguments[size:])

        task = ray.remote(num_cpus=1, max_retries=RETRIES)(run)
        results = [task.options(name=what).remote(*given, *job) for job in jobs]
        waiting = list(results)
        try:
            while waiting:
                ready, waiting = ray.wait(waiting)
                ray.get(ready)  # the first failure ends the step
                self.board.set(what, len(jobs) - len(waiting), len(jobs))
            found: list[Found] = ray.get(results)
        except ray.exceptions.RayError as error:
            for unfinished in waiting:
                ray.cancel(unfinished)
            raise own_error(error) from error
        return found

    def _reference(self, value: Any) -> Any:
        if id(value) not in self._put:
            self._put[id(value)] = value, ray.put(value)  # the value stays, so its id does
        return self._put[id(value)][1]
