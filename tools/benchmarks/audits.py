"""How fast an audit asks its models through Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.measure import Timing
from raymia.engine.base import engine
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.run.asking import ask
from raymia.spec.file import parse_spec


def time_audit(content: dict[str, Any], count_asked: Callable[[pa.Table], int]) -> Timing:
    """Ask the models of an audit of one target, in a store of its own.

    Start-up is all before the first block is stored; what the first block asked does not count.

    Parameters
    ----------
    content : of the audit file; its store is a local folder.
    count_asked : from stored answers to what was asked for them.
    """
    inputs = resolve_inputs(parse_spec(content, "benchmark"))
    store = EvidenceStore(inputs.spec.store)
    plan = plan_audit(inputs, store)
    keys = [planned.key for planned in plan[0].target.questions]
    started = time.time()
    with engine(inputs.spec.resources, inputs.spec.store, Console(file=StringIO())) as start:
        ask(plan, store, start)
    ended = time.time()
    steady = steady_state(Path(inputs.spec.store), keys, count_asked)
    if steady is None:
        block = inputs.spec.resources.block_records
        raise SystemExit(f"give more than {2 * block} records: Ray's first block is start-up")
    asked, seconds = steady
    return Timing(asked, seconds, start_up=ended - started - seconds)


def steady_state(
    store: Path, keys: Sequence[EvidenceKey], count_asked: Callable[[pa.Table], int]
) -> tuple[int, float] | None:
    """Read from the times of the store's files what was asked after the first block, and how long
    that took; None where that is all there is.

    Parameters
    ----------
    keys : of the questions, in the order in which a block is asked.
    """
    files = [
        (file.stat().st_mtime_ns / 1e9, place, file)
        for place, key in enumerate(keys)
        for file in (store / key.folder).glob("*.parquet")
    ]
    first = min(time for time, place, _ in files if place == len(keys) - 1)
    later = [(time, file) for time, _, file in files if time > first]
    if not later:
        return None
    asked = sum(count_asked(pq.read_table(file)) for _, file in later)
    return asked, max(later)[0] - first
