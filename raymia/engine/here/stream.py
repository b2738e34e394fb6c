"""One stream in this process: blocks through the pools, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing

import pyarrow as pa

from raymia.engine.blocks import make_blocks
from raymia.engine.board import Board
from raymia.engine.merging import Merging
from raymia.engine.stage import Worker, failures_in
from raymia.engine.stream import Stream
from raymia.evidence.store import EvidenceStore
from raymia.plan.stages import stored_neighbors


def run_stream(
    stream: Stream,
    records: pa.Table,
    *,
    store_url: str,
    block_records: int | Callable[[], int],
    board: Board,
) -> dict[str, str]:
    """Ask everything that is missing; the answers are in the store when this returns.

    Parameters
    ----------
    records : columns ``record_id`` and ``payload``; all that the stages were planned with.
    block_records : see :func:`raymia.engine.blocks.make_blocks`.

    Returns
    -------
    The targets that failed, and why.
    """
    failed: dict[str, str] = {}
    for stage in stream.asking:
        board.expect(stage.name, stage.to_ask)
    neighbors = stored_neighbors(stream.stages, EvidenceStore(store_url))
    merging = Merging(store_url, stream.keys)
    blocks: Iterable[pa.Table] = make_blocks(stream.asking, records, neighbors, block_records)
    with ExitStack() as stack:
        for config in stream.configs(store_url):
            worker = stack.enter_context(closing(Worker(config, board, config.key)))
            blocks = worker.pass_on(blocks)
        for block in blocks:
            failed |= failures_in(block)
            merging.after_block()
    merging.finish()
    return failed
