"""Streams of one audit at the same time, where the cluster has room for them.

Each stream is a Ray Data execution of its own, in a thread of the driver. Streams start in order.
One starts beside others only where

- every pool says what an actor takes (`gpus`, or on a cluster `cpus`) and none grows: pools that
  share out the CPUs that are there, or take what comes up, leave no place for others;
- nothing that those before it still make is missing to it: neighbors;
- the actors of all that run have their place, so that what a later stream takes was free. No two
  streams can then wait for each other's places, and one that waits waits for streams that end;
- Ray itself finds places for all its actors at once. It is asked for them as for a placement group,
  which brings up machines where an autoscaler may, and is given back as soon as it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raymia.engine.on_ray.capacity import Demand, shortages
from raymia.engine.on_ray.cluster import Cluster
from raymia.engine.on_ray.machines import demands_of
from raymia.engine.on_ray.stopping import Threads, first_done
from raymia.plan.planning import Stage
from raymia.plan.pools import Pool, pools_of

POLL_SECONDS = 0.5
SPARE = {"CPU": 1.0}
"""What Ray's own tasks need beside actors."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Stages that records pass one after another.

    Attributes
    ----------
    number : its place in the order in which streams start.
    """

    number: int
    stages: Sequence[Stage]

    @cached_property
    def pools(self) -> list[Pool]:
        """That hold the models of the stages that have something to ask."""
        return pools_of(self.stages)

    def key(self, pool: Pool) -> str:
        """What a pool is called on the board: two streams may have pools of one name."""
        return f"{self.number} {pool.name}"

    def waits_for(self, other: Stream) -> bool:
        """Whether it asks about neighbors that the other one makes."""
        makes = any(stage.role == "neighbors" and stage.to_ask for stage in other.stages)
        return makes and any(
            probe.to_ask and probe.probe.subject == "neighbor"
            for stage in self.stages
            for probe in stage.probes
        )

    def may_share(self, cluster: Cluster) -> bool:
        """Whether it says what it takes of a cluster, so that others may have the rest."""
        return all(
            (pool.spec.gpus or (pool.spec.cpus and pool.computes and not cluster.is_local))
            and (pool.spec.max_actors or pool.spec.actors) == pool.spec.actors
            for pool in self.pools
        )


def run_streams(
    streams: Sequence[Sequence[Stage]],
    run: Callable[[Stream], dict[str, str]],
    *,
    blocks: int,
    cluster: Cluster,
    board: Any,
) -> dict[str, str]:
    """Run streams, several at the same time where there is room.

    Parameters
    ----------
    run : runs one to its end, and says which targets failed and why.
    blocks : that a stream has at most.

    Returns
    -------
    The targets that failed, of all streams.

    Raises
    ------
    RaymiaError
        The first that `run` raised; the streams that run are ended.
    """
    waiting = [Stream(number, stages) for number, stages in enumerate(streams)]
    running: dict[Stream, Future[dict[str, str]]] = {}
    failed: dict[str, str] = {}
    with Threads() as threads, _Room(blocks, cluster, board) as room:
        while waiting or running:
            while waiting and room.is_there_for(waiting[0], list(running)):
                stream = waiting.pop(0)
                running[stream] = threads.start(run, stream)
            done = first_done(running.values(), POLL_SECONDS)
            for stream in [one for one, future in running.items() if future in done]:
                failed |= running.pop(stream).result()
    return failed


class _Room(ExitStack):
    """Finds out whether a stream has its place; asks Ray for it for one stream at a time."""

    def __init__(self, blocks: int, cluster: Cluster, board: Any) -> None:
        super().__init__()
        self._blocks = blocks
        self._cluster = cluster
        self._board = board
        self._asked: tuple[Stream, PlacementGroup] | None = None
        self.callback(self._give_back)

    def is_there_for(self, stream: Stream, running: Sequence[Stream]) -> bool:
        """Whether a stream can start now, beside those that run."""
        found = not running or (self._may_start(stream, running) and self._has_place(stream))
        if found:
            self._give_back()
        return found

    def _may_start(self, stream: Stream, running: Sequence[Stream]) -> bool:
        if not all(one.may_share(self._cluster) for one in (stream, *running)):
            return False
        if any(stream.waits_for(other) for other in running):
            return False
        if self._asked is not None and self._asked[0] is stream:
            return True
        known = self._cluster.startable is not None
        together = [d for one in (*running, stream) for d in self._demands(one)]
        if known and shortages(together, self._cluster.machines):
            return False
        try:
            placed = set(ray.get(self._board.placed.remote()))
        except ray.exceptions.RayError:  # it is being started again; streams go on in turn
            return False
        return placed >= {one.key(pool) for one in running for pool in one.pools}

    def _has_place(self, stream: Stream) -> bool:
        if self._asked is None:
            actors = [d for d in self._demands(stream) if d.resources for _ in range(d.actors)]
            labels = [dict(actor.labels) for actor in actors]
            group = placement_group(
                [*(dict(actor.resources) for actor in actors), SPARE],
                bundle_label_selector=[*labels, {}] if any(labels) else None,
            )
            self._asked = stream, group
        return bool(self._asked[1].wait(POLL_SECONDS))

    def _demands(self, stream: Stream) -> list[Demand]:
        return demands_of(stream.pools, self._blocks, self._cluster)

    def _give_back(self) -> None:
        if self._asked is not None:
            with suppress(Exception):  # the cluster may be what ended the block
                remove_placement_group(self._asked[1])
            self._asked = None
