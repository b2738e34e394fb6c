"""One streaming Ray Data dataset: blocks of records through a chain of actor pools."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.exceptions import ExecutionTimeoutError

from raymia.engine.blocks import make_blocks
from raymia.engine.on_ray.cluster import Cluster, pool_options, threads_per_actor
from raymia.engine.on_ray.failures import own_error
from raymia.engine.on_ray.machines import Machines, demands_of
from raymia.engine.on_ray.merging import Merging
from raymia.engine.on_ray.side_by_side import Stream
from raymia.engine.on_ray.stopping import StoppedError, stop_requested
from raymia.engine.stage import (
    FAILED,
    RECORD_COLUMNS,
    PoolActor,
    PoolConfig,
    Task,
    failures_in,
    todo_column,
)
from raymia.evidence.store import EvidenceStore
from raymia.models.source import origins_of
from raymia.plan.planning import stored_neighbors
from raymia.spec import PoolSpec
from raymia.util.errors import RaymiaError

MIN_TIMEOUT_SECONDS = 1_800.0
"""Ray Data's own: how long nothing may be answered before that is taken for a stall."""


def run_stream(
    stream: Stream,
    records: pa.Table,
    *,
    store_url: str,
    block_records: int,
    cluster: Cluster,
    machines: Machines,
    wait_minutes: float,
    board: Any,
) -> dict[str, str]:
    """Ask everything that is missing; the answers are in the store when this returns.

    Blocks lie in Ray's object store, and parts are merged by tasks, so that this process holds
    neither.

    Parameters
    ----------
    stream : a block passes its stages in their order; a stage that has nothing to ask is left out,
        and stages on one base are one pool (:mod:`raymia.plan.pools`).
    records : columns ``record_id`` and ``payload``; all that the stages were planned with.
    machines, wait_minutes : see :func:`raymia.engine.on_ray.machines.machines_for`.

    Returns
    -------
    The targets that failed, and why.

    Raises
    ------
    RaymiaError
        What a stage that targets share raised, without Ray's wrapping.
    StoppedError
        Where this thread was told to end.
    """
    neighbors = stored_neighbors(stream.stages, EvidenceStore(store_url))
    pools = stream.pools
    stages = [stage for pool in pools for stage in pool.stages]
    blocks, sent = [], 0
    for block in make_blocks(stages, records, neighbors, block_records):
        blocks.append(ray.put(block))
        sent += block.num_rows
    if not blocks:
        return {}
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Wrapped in Ray Data's own exception, the error of a worker would not reach the driver.
    context.raise_original_map_exception = True
    # The error is raised here; ray.data set its own level when it was imported.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    # Waiting for machines to come up, or for a large model to load, is not a stall.
    context.execution_no_progress_timeout_s = max(MIN_TIMEOUT_SECONDS, 60 * wait_minutes)
    context.execution_options.preserve_order = False
    context.custom_execution_callback_classes = [EndsWhenStopped]
    actors = sum(pool.spec.actors for pool in pools)
    computing = sum(pool.spec.actors for pool in pools if pool.computes)
    dataset = ray.data.from_arrow_refs(blocks)
    for number, pool in enumerate(pools):
        for stage in pool.stages:
            board.expect.remote(stage.name, stage.to_ask)
        later = [
            todo_column(p.key)
            for other in pools[number + 1 :]
            for stage in other.stages
            for p in stage.probes
            if p.missing
        ]
        last = number + 1 == len(pools)
        config = PoolConfig(
            key=stream.key(pool),
            tasks=tuple(
                Task(
                    stage.name,
                    stage.loader,
                    tuple((p.question, p.probe, p.key) for p in stage.probes if p.missing),
                    stage.only_for,
                )
                for stage in pool.stages
            ),
            store_url=store_url,
            threads=threads_per_actor(computing, cluster),
            passes_on=("record_id", FAILED.name)
            if last
            else (*RECORD_COLUMNS, FAILED.name, *later),
            origins=origins_of(stage.loader.checkpoint for stage in pool.stages),
        )
        dataset = dataset.map_batches(
            _named(pool.name),
            batch_size=block_records,  # a block; Ray Data wants a number for actors on GPUs
            batch_format="pyarrow",
            compute=_strategy(pool.spec, len(blocks)),
            fn_constructor_args=(config, board),
            udf_modifying_row_count=False,
            **pool_options(pool.spec, actors, cluster),
        )
    passed, failed = 0, dict[str, str]()
    merging = Merging(store_url, [p.key for s in stages for p in s.probes if p.missing])
    try:
        with machines(demands_of(pools, len(blocks), cluster)):
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                passed += batch.num_rows
                failed |= failures_in(batch)
                merging.after_block()
        if not stop_requested().is_set():
            merging.finish()
    except ray.exceptions.RayError as error:
        raise own_error(error) from error
    except ExecutionTimeoutError:
        raise RaymiaError(
            f"nothing was answered for {context.execution_no_progress_timeout_s / 60:.0f} minutes: "
            "the machines were lost and none came up for them, or a model takes longer than that; "
            "what was answered is stored, run it again to go on, with a longer "
            "resources.wait_minutes if need be"
        ) from None
    if stop_requested().is_set():
        raise StoppedError
    if passed != sent:
        raise RaymiaError(f"{sent} records went into the stream and {passed} came out of it")
    return failed


class EndsWhenStopped(ExecutionCallback):  # type: ignore[misc]
    """Kills the actors of an execution that fails, or whose thread is told to end.

    Ray Data makes one in the thread that asks for an execution, and calls it in the loop of that
    execution, many times a second. By itself it lets actors finish what they are at, and keeps them
    as long as anybody keeps the error.
    """

    def __init__(self) -> None:
        self._stop = stop_requested()
        self._ending: threading.Thread | None = None

    def before_execution_starts(self, executor: Any) -> None:
        shutdown = executor.shutdown

        def kill(force: bool, exception: BaseException | None = None) -> None:
            shutdown(force or exception is not None, exception)

        executor.shutdown = kill

    def on_execution_step(self, executor: Any) -> None:
        if self._stop.is_set() and self._ending is None:
            # In a thread, since it waits for the loop that calls this.
            self._ending = threading.Thread(target=executor.shutdown, args=(True,), daemon=True)
            self._ending.start()


def _strategy(pool: PoolSpec, blocks: int) -> ray.data.ActorPoolStrategy:
    """A pool of a fixed size, or one that grows to the machines that come up."""
    least, most = (min(n, blocks) for n in (pool.actors, pool.max_actors or pool.actors))
    if least == most:
        return ray.data.ActorPoolStrategy(size=least)
    return ray.data.ActorPoolStrategy(min_size=least, max_size=most)


def _named(pool: str) -> type[PoolActor]:
    """A class of its own per pool, so that Ray's dashboard and logs say which pool is which."""
    name = "".join(c if c.isalnum() else "_" for c in pool)
    return type(name, (PoolActor,), {})
