"""The work of a run on Ray: on this machine, or on the cluster that RAY_ADDRESS names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from rich.console import Console

from raymia.engine.board import Board, OnLines
from raymia.engine.on_ray.board import RemoteBoard, started
from raymia.engine.on_ray.capacity import Demand, shortages
from raymia.engine.on_ray.cluster import Cluster, check_store_is_shared, connected, is_given
from raymia.engine.on_ray.machines import (
    demand_of_tasks,
    machines_for,
    max_blocks,
    one_cpu,
    refuse,
    refuse_impossible,
)
from raymia.engine.on_ray.reduce import Tasks
from raymia.engine.on_ray.side_by_side import run_streams
from raymia.engine.on_ray.stream import run_stream
from raymia.engine.on_ray.tasks import outcomes, run_tasks
from raymia.engine.prepare import MAX_THREADS, Making, reference_maker, rounds_of, share_writers
from raymia.engine.stream import Stream
from raymia.evidence.store import EvidenceStore
from raymia.plan.blocks import BlockSizes, Lines
from raymia.scoring.evidence import TargetEvidence
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.storage.files import can_write
from raymia.sweep.evaluate import Setting
from raymia.sweep.proposals import Proposed
from raymia.sweep.work import STAGE, Case, Terms, Trials
from raymia.util.caller import silenced
from raymia.util.errors import RaymiaError

if TYPE_CHECKING:
    from raymia.plan.planning import AuditPlan


@contextmanager
def on_ray(resources: ResourcesSpec, store_url: str, console: Console) -> Iterator[RayExecutor]:
    """Join or start Ray, and check that it can serve an audit."""
    if not ray.is_initialized():
        console.print(f"{'joining' if is_given() else 'starting'} Ray ...", highlight=False)
    with connected(resources) as cluster:
        _say_if_unused(cluster.gpus, resources, console)
        if can_write(store_url):  # else it can only be read, and is complete
            check_store_is_shared(store_url)
        yield RayExecutor(cluster, resources, store_url, console)


def _say_if_unused(gpus: float, resources: ResourcesSpec, console: Console) -> None:
    pools = resources.paraphraser, resources.target, resources.reference
    if gpus and not any(pool.gpus for pool in pools):
        console.print(
            f"this cluster has {gpus:g} GPU and the audit file gives its pools none: "
            "set gpus under resources.paraphraser, target and reference"
        )


@dataclass(frozen=True)
class RayExecutor:
    """See :class:`raymia.engine.base.Executor`."""

    cluster: Cluster
    resources: ResourcesSpec
    store_url: str
    console: Console

    @contextmanager
    def _machines(self, demands: Sequence[Demand]) -> Iterator[None]:
        """See :func:`raymia.engine.on_ray.machines.machines_for`; those that came up see the
        store."""
        before = self.cluster.gpus
        with self._up(demands):
            if not before:
                _say_if_unused(self.cluster.gpus, self.resources, self.console)
            if self.cluster.startable != () and can_write(self.store_url):
                check_store_is_shared(self.store_url)
            yield

    def _up(self, demands: Sequence[Demand]) -> AbstractContextManager[None]:
        """The same for what reads and writes no store."""
        wait = self.resources.wait_minutes
        return machines_for(demands, self.cluster, self.console, wait)

    def check(self, plan: AuditPlan) -> None:
        refuse_impossible(plan, self._sizes(plan), self.cluster)

    def _sizes(self, plan: AuditPlan, board: Board | None = None) -> BlockSizes:
        lines: Lines = dict if board is None else board.snapshot
        return BlockSizes(plan.inputs, plan.streams, EvidenceStore(self.store_url), lines)

    def reporting(self, on_lines: OnLines | None = None) -> AbstractContextManager[RemoteBoard]:
        return started(self.console, on_lines)

    def make(
        self, wanted: Sequence[Making], pool: PoolSpec, board: Board
    ) -> dict[str, RaymiaError]:
        self._write(wanted, board)
        functions = [reference_maker(making, pool, self.store_url, board) for making in wanted]
        at_once = min(len(wanted), pool.max_actors or pool.actors)
        demand = demand_of_tasks(wanted[0].name, at_once, pool, self.cluster)
        failed: dict[str, RaymiaError] = {}
        with self._machines([demand]):
            for place, outcome in outcomes(functions, pool, self.cluster, at_once):
                if isinstance(outcome, RaymiaError):
                    keys = (recipe.key for _, recipe in wanted[place].recipes)
                    outcome = dict.fromkeys(keys, outcome)
                failed |= outcome
        return failed

    def _write(self, wanted: Sequence[Making], board: Board) -> None:
        """Let all workers of the target's pool write what references are made of, where they are
        more than there are references. What one of them cannot, the making tries again, and says
        why."""
        store, pool = EvidenceStore(self.store_url), self.resources.target
        left = [one for one in wanted if store.prepared_facts(one.material_key) is None]
        at_once = pool.max_actors or pool.actors
        writers = [
            share_writers(one, at_once // len(left), pool, self.store_url, board) for one in left
        ]
        for done in range(max(map(rounds_of, left), default=0)):
            functions = [
                write
                for one, each in zip(left, writers, strict=True)
                if done < rounds_of(one)
                for write in each
            ]
            if functions:
                name, most = functions[0].__name__, min(at_once, len(functions))
                if self._is_impossible(demand_of_tasks(name, 1, pool, self.cluster)):
                    return  # and the makings write, in the pool of references
                demand = demand_of_tasks(name, most, pool, self.cluster)
                with self._machines([demand]):
                    list(outcomes(functions, pool, self.cluster, at_once))

    def _is_impossible(self, demand: Demand) -> bool:
        known = self.cluster.startable is not None
        return known and bool(shortages([demand], self.cluster.machines))

    def ask(self, plan: AuditPlan, board: Board) -> dict[str, str]:
        """See :meth:`raymia.engine.base.Executor.ask`. Several streams run at the same time where
        the cluster has room for them (:mod:`raymia.engine.on_ray.side_by_side`)."""
        assert isinstance(board, RemoteBoard)
        records, sizes = plan.inputs.payloads, self._sizes(plan, board)

        def run(stream: Stream) -> dict[str, str]:
            return run_stream(
                stream,
                records,
                store_url=self.store_url,
                block_records=partial(sizes.records, stream.stages),
                cluster=self.cluster,
                machines=self._machines,
                wait_minutes=self.resources.wait_minutes,
                board=board,
            )

        blocks = max_blocks(plan.inputs, sizes)
        with silenced("ray.data"):  # what goes wrong is raised
            return run_streams(plan.streams, run, blocks=blocks, cluster=self.cluster, board=board)

    def call(self, functions: Sequence[Callable[[], Any]], pool: PoolSpec) -> list[Any]:
        name, most = functions[0].__name__, len(functions)
        if pool.cpus is None and not pool.gpus:
            one = demand_of_tasks(name, 1, pool, self.cluster)
            # How many CPUs a machine has is seen when one is there.
            unknown = self.cluster.is_unknown_to(pool)
            with self._machines([one]) if unknown else nullcontext():
                whole = min(MAX_THREADS, self.cluster.cpus_of_a_machine(pool))
            pool = pool.model_copy(update={"cpus": whole})
        refuse([[demand_of_tasks(name, 1, pool, self.cluster)]], self.cluster)
        with self._machines([demand_of_tasks(name, most, pool, self.cluster)]):
            return run_tasks(functions, pool, self.cluster)

    def workers(self, board: Board, room: str) -> Tasks:
        if room != self.store_url:
            check_store_is_shared(room, "output")
        return Tasks(board, self._up)

    def try_settings(
        self,
        settings: Sequence[Setting],
        proposed: Sequence[Proposed],
        evidence: Mapping[Case, TargetEvidence],
        terms: Terms,
        board: Board,
    ) -> Trials:
        from raymia.engine.on_ray.sweep import try_settings  # ray.tune takes half a second

        with self._up([one_cpu(STAGE)]):  # how many there are is seen when one is there
            return try_settings(
                settings, proposed, evidence, terms, cpus=self.cluster.cpus, board=board
            )
