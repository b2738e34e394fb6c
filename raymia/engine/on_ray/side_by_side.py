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

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raymia.engine.on_ray.board import RemoteBoard
from raymia.engine.on_ray.capacity import Demand, shortages
from raymia.engine.on_ray.cluster import Cluster
from raymia.engine.on_ray.machines import demands_of
from raymia.engine.on_ray.stopping import Threads, first_done
from raymia.engine.stream import Stream
from raymia.plan.stages import Stage

POLL_SECONDS = 0.5
PLACE_SECONDS = 1
"""How long one look for a place may take. Ray counts whole seconds: a part of one is none, in which
hardly an answer comes."""
SPARE = {"CPU": 1.0}
"""What Ray's own tasks need beside actors."""


def run_streams(
    streams: Sequence[Sequence[Stage]],
    run: Callable[[Stream], dict[str, str]],
    *,
    blocks: int,
    cluster: Cluster,
    board: RemoteBoard,
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


def may_share(stream: Stream, cluster: Cluster) -> bool:
    """Whether a stream says what it takes of a cluster, so that others may have the rest."""
    return all(
        (pool.spec.gpus or (pool.spec.cpus and pool.computes and not cluster.is_local))
        and (pool.spec.max_actors or pool.spec.actors) == pool.spec.actors
        for pool in stream.pools
    )


class _Room(ExitStack):
    """Finds out whether a stream has its place; asks Ray for it for one stream at a time."""

    def __init__(self, blocks: int, cluster: Cluster, board: RemoteBoard) -> None:
        super().__init__()
        self._blocks = blocks
        self._cluster = cluster
        self._board = board
        self._pending: tuple[Stream, PlacementGroup] | None = None
        self.callback(self._give_back)

    def is_there_for(self, stream: Stream, running: Sequence[Stream]) -> bool:
        """Whether a stream can start now, beside those that run."""
        found = not running or (self._may_start(stream, running) and self._has_place(stream))
        if found:
            self._give_back()
        return found

    def _may_start(self, stream: Stream, running: Sequence[Stream]) -> bool:
        if not all(may_share(one, self._cluster) for one in (stream, *running)):
            return False
        if any(stream.waits_for(other) for other in running):
            return False
        if self._pending is not None and self._pending[0] is stream:
            return True
        known = self._cluster.startable is not None
        together = [d for one in (*running, stream) for d in self._demands(one)]
        if known and shortages(together, self._cluster.machines):
            return False
        try:
            placed = self._board.placed()
        except ray.exceptions.RayError:  # it is being started again; streams go on in turn
            return False
        return placed >= {one.key(pool) for one in running for pool in one.pools}

    def _has_place(self, stream: Stream) -> bool:
        if self._pending is None:
            actors = [d for d in self._demands(stream) if d.resources for _ in range(d.actors)]
            labels = [dict(actor.labels) for actor in actors]
            group = placement_group(
                [*(dict(actor.resources) for actor in actors), SPARE],
                bundle_label_selector=[*labels, {}] if any(labels) else None,
            )
            self._pending = stream, group
        return bool(self._pending[1].wait(PLACE_SECONDS))

    def _demands(self, stream: Stream) -> list[Demand]:
        return demands_of(stream.pools, self._blocks, self._cluster)

    def _give_back(self) -> None:
        if self._pending is not None:
            with suppress(Exception):  # the cluster may be what ended the block
                remove_placement_group(self._pending[1])
            self._pending = None
