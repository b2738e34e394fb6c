"""One streaming Ray Data dataset: blocks of records through a chain of actor pools."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.exceptions import ExecutionTimeoutError

from raymia.engine.blocks import make_blocks
from raymia.engine.on_ray.board import RemoteBoard
from raymia.engine.on_ray.cluster import Cluster, hide_gpus, pool_options, threads_per_actor
from raymia.engine.on_ray.failures import own_error
from raymia.engine.on_ray.killing import Actors, report_to
from raymia.engine.on_ray.machines import Machines, demands_of
from raymia.engine.on_ray.merging import TaskMerging
from raymia.engine.on_ray.ray_private import set_options
from raymia.engine.on_ray.source import Source, fetched, numbered, unwrapped, wrapped
from raymia.engine.on_ray.stopping import StoppedError, stop_requested
from raymia.engine.stage import BLOCKS_AT_ONCE, PoolConfig, Worker, failures_in
from raymia.engine.stream import Stream
from raymia.evidence.store import EvidenceStore
from raymia.plan.blocks import MAX_BLOCKS, records_of
from raymia.plan.stages import stored_neighbors
from raymia.spec import PoolSpec
from raymia.util.errors import RaymiaError

MIN_TIMEOUT_SECONDS = 1_800.0
"""Ray Data's own: how long nothing may be answered before that is taken for a stall."""


def run_stream(
    stream: Stream,
    records: pa.Table,
    *,
    store_url: str,
    block_records: Callable[[], int],
    cluster: Cluster,
    machines: Machines,
    wait_minutes: float,
    board: RemoteBoard,
) -> dict[str, str]:
    """Ask everything that is missing; the answers are in the store when this returns.

    Blocks are cut while the stream runs (:mod:`raymia.engine.on_ray.source`) and lie in Ray's
    object store, and parts are merged by tasks, so that this process holds neither.

    Parameters
    ----------
    stream : a block passes its stages in their order; a stage that has nothing to ask is left out,
        and stages on one base are one pool (:mod:`raymia.plan.pools`).
    records : columns ``record_id`` and ``payload``; all that the stages were planned with.
    block_records : says, before each block, how many records it should have.
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
    pools, stages = stream.pools, stream.asking
    to_ask = records_of(pools)
    if not to_ask:
        return {}
    source = Source(
        board,
        str(stream.number),
        partial(make_blocks, stages, records, neighbors, keeper=_ObjectStore()),
        records=to_ask,
        wanted=block_records,
        most=MAX_BLOCKS,
    )
    actors = sum(pool.spec.actors for pool in pools)
    computing = sum(pool.spec.actors for pool in pools if pool.computes)
    threads = threads_per_actor(computing, cluster)
    dataset = numbered(source)
    # Waiting for machines to come up, or for a large model to load, is not a stall.
    timeout = max(MIN_TIMEOUT_SECONDS, 60 * wait_minutes)
    set_options(dataset.context, timeout)  # its own; the caller's stays as it is
    pool_actors = Actors(dataset.context)
    for stage in stages:
        board.expect(stage.name, stage.to_ask)
    for place, (pool, config) in enumerate(zip(pools, stream.configs(store_url), strict=True)):
        dataset = dataset.map_batches(
            _named(pool.name),
            batch_size=1,
            batch_format="pyarrow",
            compute=_strategy(pool.spec, source.expected),
            fn_constructor_args=(
                config,
                board,
                None if place else str(stream.number),
                threads if pool.computes else None,
                pool_actors.register,
                bool(pool.spec.gpus),
            ),
            udf_modifying_row_count=False,
            **pool_options(pool.spec, actors, cluster),
        )
    passed, failed = 0, dict[str, str]()
    merging = TaskMerging(store_url, stream.keys)
    try:
        demands = demands_of(pools, source.expected, cluster)
        with (
            source.filling(pool_actors.end),
            machines(demands),
            pool_actors.end_with(),
        ):
            # Without anything ahead: a thread of Ray's that fetches it would keep it to the end.
            rows = dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0)
            for row in rows:
                block = unwrapped(row)
                if block is not None:
                    passed += block.num_rows
                    failed |= failures_in(block)
                    source.passed(row["number"][0].as_py())
                    merging.after_block()
                if passed == to_ask:  # the numbers that are left have no blocks
                    board.close(str(stream.number))
                    pool_actors.end()
                    break
        if not stop_requested().is_set():
            merging.finish()
    except ray.exceptions.RayError as error:
        if stop_requested().is_set():
            raise StoppedError from error
        source.check()
        raise own_error(error) from error
    except ExecutionTimeoutError:
        raise RaymiaError(
            f"nothing was answered for {timeout / 60:.0f} minutes: "
            "the machines were lost and none came up for them, or a model takes longer than that; "
            "what was answered is stored, run it again to go on, with a longer "
            "resources.wait_minutes if need be"
        ) from None
    if stop_requested().is_set():
        raise StoppedError
    source.check()
    if passed != to_ask:
        raise RaymiaError(f"{to_ask} records went into the stream and {passed} came out of it")
    return failed


class PoolActor:
    """A worker as an actor, called by Ray Data from as many threads as it may hold blocks.

    Parameters
    ----------
    shelf : of the stream, where this is its first pool; None where blocks come from another pool.
    threads : torch threads; None where nothing is computed, and where they stay as they are.
    register : see :func:`raymia.engine.on_ray.killing.report_to`.
    on_gpu : whether it was given a GPU, or a part of one.
    """

    def __init__(
        self,
        config: PoolConfig,
        board: RemoteBoard,
        shelf: str | None,
        threads: int | None,
        register: Any,
        on_gpu: bool,
    ) -> None:
        report_to(register)
        if not on_gpu:
            hide_gpus()
        self._board, self._shelf = board, shelf
        self._worker = Worker(config, board, ray.get_runtime_context().get_actor_id())
        # Loading in the background makes a failure to load an error of the first block, which Ray
        # reports with its cause; an error in a constructor it does not.
        self._thread = ThreadPoolExecutor(1)
        self._begun = self._thread.submit(self._begin, threads)

    def _begin(self, threads: int | None) -> None:
        if threads is not None:
            import torch  # which takes more than a second

            torch.set_num_threads(threads)  # of this thread
        self._worker.load()
        # Answers are many small objects. To look for garbage among them takes less than among those
        # of the libraries and the model, which stay.
        gc.collect()
        gc.freeze()

    def __call__(self, row: pa.Table) -> pa.Table:
        number = row["number"][0].as_py()
        block = self._block(number, row)
        if block is None:
            return wrapped(number, None)
        self._begun.result()
        self._worker.prepare(block)
        passed = self._thread.submit(self._worker.ask, block).result()
        return wrapped(number, passed())

    def _block(self, number: int, row: pa.Table) -> pa.Table | None:
        if self._shelf is None:
            return unwrapped(row)
        return fetched(self._board, self._shelf, number)


class _ObjectStore:
    """Keeps tables in Ray's object store."""

    def put(self, table: pa.Table) -> Any:
        return ray.put(table)

    def get(self, kept: Any) -> pa.Table:
        table: pa.Table = ray.get(kept)
        return table


def _strategy(pool: PoolSpec, blocks: int) -> ray.data.ActorPoolStrategy:
    """A pool of a fixed size, or one that grows to the machines that come up."""
    least, most = (min(n, blocks) for n in (pool.actors, pool.max_actors or pool.actors))
    size = {"size": least} if least == most else {"min_size": least, "max_size": most}
    return ray.data.ActorPoolStrategy(
        **size, max_concurrent_calls_per_actor=BLOCKS_AT_ONCE, enable_true_multi_threading=True
    )


def _named(pool: str) -> type[PoolActor]:
    """A class of its own per pool, so that Ray's dashboard and logs say which pool is which."""
    name = "".join(c if c.isalnum() else "_" for c in pool)
    return type(name, (PoolActor,), {})
