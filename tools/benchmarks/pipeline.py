"""What an audit takes beside its models, from its files to its report, with a model that answers
at once."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

import raymia
from benchmarks.measure import machine_facts, machine_line
from benchmarks.reductions import descendants
from benchmarks.whole import held_to_whole
from raymia.evidence.store import EvidenceStore
from raymia.evidence.upkeep import stored_things
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.model import TokenAnswer
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.loaders import Loader
from raymia.plan.planning import plan_audit
from raymia.plan.stages import Stage
from raymia.report.files import write_run
from raymia.run.outcome import Run, sum_up
from raymia.scoring.parts import score_parts
from raymia.scoring.reduction import reduce_audit, score_tables
from raymia.spec import AuditSpec
from raymia.spec.file import parse_spec

START = "<!-- made by tools/benchmark.py --pipeline -->"
LIBRARIES = ("raymia", "ray", "numpy", "pyarrow")
MODEL = Path(raymia.__file__).parent / "demo" / "assets" / "models" / "base"
ATTACKS = ["loss", "min_k", "learned_combination"]
TOKENS = 32
"""Of each text."""
STEPS = {
    "stream": "asking",
    "score": "scoring and measuring",
    "sum up": "summing up",
    "write": "writing",
}
DRAWN = 2**22
"""Tokens whose answers are drawn beforehand; a text's are somewhere among them."""
WORDS = 20
ROWS_AT_ONCE = 2**16
SAMPLE_SECONDS = 0.5
MEBIBYTE = 2**20

Found = TypeVar("Found")


class NullModel:
    """Answers at once, and the same whenever it is asked about a text."""

    def __init__(self, number: int) -> None:
        draws = np.random.default_rng(number)
        self._ids = draws.integers(0, 50_000, DRAWN, np.int32)
        self._log_prob = -draws.exponential(3.0, DRAWN).astype(np.float32)
        self._mean = -draws.uniform(1.0, 8.0, DRAWN).astype(np.float32)
        self._std = draws.uniform(0.5, 3.0, DRAWN).astype(np.float32)
        self._is_top1 = self._log_prob > -1.0

    def answer(self, texts: Sequence[str], *, moments: bool) -> list[TokenAnswer]:
        """See :meth:`raymia.models.causal.model.CausalLM.answer`."""
        del moments  # they come in any case
        return [self._answer(text) for text in texts]

    def _answer(self, text: str) -> TokenAnswer:
        start = zlib.crc32(text.encode()) % (DRAWN - TOKENS)
        own = slice(start, start + TOKENS)
        return TokenAnswer(
            self._ids[own],
            self._log_prob[own],
            self._mean[own],
            self._std[own],
            self._is_top1[own],
            truncated=False,
        )


@dataclass(frozen=True)
class NullLoader(Loader):
    """Stands in for the loader of a checkpoint, whose weights are not read."""

    number: int
    checkpoint: None = None

    def load(self) -> NullModel:
        return NullModel(self.number)


@dataclass
class Samples:
    """What was looked at now and then, while something ran.

    Attributes
    ----------
    seconds : when, by :func:`time.perf_counter`.
    memory : anonymous memory of this process in bytes: what it alone holds, without the pages of
        Ray's object store that it has written, and of files that it has mapped.
    workers : the same of the largest of Ray's workers.
    files : Parquet files in the store.
    """

    store: Path
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def take(self) -> None:
        self.memory.append(anonymous_memory())
        self.workers.append(largest_worker())
        self.files.append(sum(1 for _ in self.store.glob("evidence/*/*/*.parquet")))
        self.seconds.append(time.perf_counter())

    def between(self, began: float, ended: float) -> Samples:
        """Those of some stretch of time."""
        rows = [n for n, second in enumerate(self.seconds) if began <= second <= ended]
        return Samples(
            self.store,
            [self.seconds[n] for n in rows],
            [self.memory[n] for n in rows],
            [self.workers[n] for n in rows],
            [self.files[n] for n in rows],
        )


@contextmanager
def sampled(store: Path) -> Iterator[Samples]:
    """Look while the block runs."""
    samples, stop = Samples(store), threading.Event()

    def look() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            samples.take()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def anonymous_memory(process: int | str = "self") -> int:
    """Resident memory of a process that no file stands behind, in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    sizes = (line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(next(sizes, 0)) * 1024  # a process that has ended has none


def largest_worker() -> int:
    """Anonymous memory of the largest of the workers of the Ray that this process started."""
    found = [0]
    for process in descendants(os.getpid()):
        with suppress(OSError):  # one that has ended
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::"):
                found.append(anonymous_memory(process))
    return max(found)


def make_audit(records: int, targets: int, block_records: int, folder: Path) -> AuditSpec:
    """An audit of made-up texts, half of them members, by three attacks on so many checkpoints.

    The checkpoints are the shipped model cut to different lengths, so that each has evidence of its
    own; none is loaded.
    """
    paths = {}
    for name, first in (("members", 0), ("non_members", records // 2)):
        paths[name] = str(folder / f"{name}.parquet")
        stop = records // 2 if name == "members" else records
        with pq.ParquetWriter(paths[name], pa.schema([("text", pa.string())])) as writer:
            for start in range(first, stop, ROWS_AT_ONCE):
                numbers = range(start, min(start + ROWS_AT_ONCE, stop))
                writer.write_table(pa.table({"text": [*map(_text, numbers)]}))
    content = {
        "name": "made-up",
        "output": str(folder / "run"),
        "store": str(folder / "store"),
        "records": paths,
        "targets": [
            {"name": f"checkpoint-{n}", "model": str(MODEL), "max_tokens": 64 + n}
            for n in range(targets)
        ],
        "attacks": ATTACKS,
        "metrics": {"resamples": 100},
        "resources": {"block_records": block_records},
    }
    return parse_spec(content, "benchmark")


def _text(number: int) -> str:
    return " ".join(f"{number * 7919 + word * 104729:x}" for word in range(WORDS))


def with_null_models(stages: Sequence[Stage]) -> list[Stage]:
    """The same stages, with models that answer at once."""
    found = []
    for number, stage in enumerate(stages):
        assert isinstance(stage.loader.checkpoint, CausalCheckpoint)
        found.append(replace(stage, loader=NullLoader(number)))
    return found


def measure(spec: AuditSpec, *, whole: bool = False) -> dict[str, Any]:
    """Take an audit from its files to its report.

    Parameters
    ----------
    whole : score once more without shards at the end, and count what is not equal.

    Returns
    -------
    ``seconds`` of reading the records, of planning with nothing and with everything stored, of
    starting Ray, of the streams, of the reduction, of what else the report tells and of writing it;
    ``memory`` of this process, and of the largest worker, in MiB; ``files`` and ``bytes`` of
    evidence in the store; ``whole`` as of :func:`held_to_whole`, None if it was not asked for.
    """
    from raymia.engine.blocks import make_blocks
    from raymia.engine.on_ray.board import started
    from raymia.engine.on_ray.cluster import connected
    from raymia.engine.on_ray.machines import machines_for
    from raymia.engine.on_ray.reduce import Tasks
    from raymia.engine.on_ray.stream import run_stream
    from raymia.engine.stream import Stream

    quiet, store, resources = Console(file=StringIO()), EvidenceStore(spec.store), spec.resources
    block_records = resources.block_records
    assert isinstance(block_records, int)
    seconds: dict[str, float] = {}
    began: dict[str, float] = {}

    def timed(what: str, run: Callable[[], Found]) -> Found:
        began[what] = time.perf_counter()
        found = run()
        seconds[what] = time.perf_counter() - began[what]
        print(f"{what}: {seconds[what]:,.1f} s", flush=True)
        return found

    with sampled(Path(spec.store)) as samples:
        inputs = timed("read", lambda: resolve_inputs(spec))
        gc.collect()
        plans = timed("plan", lambda: plan_audit(inputs, store))
        records, targets = inputs.records.table.num_rows, len(plans)
        streams = [
            Stream(number, with_null_models(stages)) for number, stages in enumerate(plans.streams)
        ]
        block = next(make_blocks(streams[0].stages, inputs.payloads, (), block_records))

        def stream() -> None:
            for one in streams:
                run_stream(
                    one,
                    inputs.payloads,
                    store_url=spec.store,
                    block_records=lambda: block_records,
                    cluster=cluster,
                    machines=machines,
                    wait_minutes=resources.wait_minutes,
                    board=board,
                )

        starting = time.perf_counter()
        with connected(resources) as cluster, started(quiet) as board:
            seconds["ray"] = time.perf_counter() - starting
            machines = partial(
                machines_for, cluster=cluster, console=quiet, wait_minutes=resources.wait_minutes
            )
            timed("stream", stream)
            after = timed("plan again", plans.as_it_is_now)
            assert sum(plan.to_ask for plan in after) == 0, "answers are missing"
            with score_parts(spec.store) as parts:
                workers = Tasks(board, machines)
                reduction = timed(
                    "score", lambda: reduce_audit(inputs, store, after, parts, workers)
                )
                run = Run(inputs, store, plans, after, {}, sum(seconds.values()))
                result = timed("sum up", lambda: sum_up(run, reduction, parts, workers))
                tables = score_tables(inputs, after, parts)
                timed("write", lambda: write_run(spec.output, result, tables, reduction.curves))
                samples.take()
                held = None
                if whole:
                    held = held_to_whole(inputs, store, after, parts, reduction)
        assert len(result.metrics) == len(ATTACKS) * targets

    def during(what: str) -> Samples:
        return samples.between(began[what], began[what] + seconds[what])

    streaming = during("stream")
    run_samples = samples.between(samples.seconds[0], began["write"] + seconds["write"])
    evidence = [thing for thing in stored_things(store) if thing.folder.startswith("evidence/")]
    passed = records * targets
    return {
        "records": records,
        "targets": targets,
        "block_records": block_records,
        "tokens": TOKENS,
        "rounds": 1,
        "seconds": {what: round(value, 1) for what, value in seconds.items()},
        "records_per_second": round(passed / seconds["stream"], 1),
        "memory": {
            "before_stream": _mebibytes(streaming.memory[0]),
            "stream_max": _mebibytes(max(streaming.memory)),
            "stream_end": _mebibytes(streaming.memory[-1]),
            "slope_per_million": round(slope(streaming) / passed * 1e6 / MEBIBYTE, 1),
            "most": _mebibytes(max(run_samples.memory)),
            "worker": _mebibytes(max(run_samples.workers)),
            "most_by_step": {
                what: {
                    "driver": _mebibytes(max(during(what).memory, default=0)),
                    "worker": _mebibytes(max(during(what).workers, default=0)),
                }
                for what in began
            },
        },
        "files": {"most": max(samples.files), "end": samples.files[-1]},
        "whole": held,
        "blocks": targets * math.ceil(records / block_records),
        "evidence_bytes": round(sum(thing.size for thing in evidence) / passed, 1),
        "block_bytes": round(block.nbytes / block.num_rows, 1),
    }


def slope(samples: Samples) -> float:
    """By how much memory grew over the whole stretch, by the straight line that fits it best."""
    line = np.polyfit(samples.seconds, samples.memory, 1)
    return float(line[0]) * (samples.seconds[-1] - samples.seconds[0])


def _mebibytes(size: int) -> float:
    return round(size / MEBIBYTE, 1)


def summary(found: dict[str, Any], load: float) -> dict[str, Any]:
    """What was measured, and on what."""
    return {**found, "machine": machine_facts(load, LIBRARIES)}


def page_table(found: Mapping[str, Any]) -> str:
    """The figures in a table."""
    seconds, memory, files = found["seconds"], found["memory"], found["files"]
    rows = [
        ("reading the records", f"{seconds['read']:,.1f} s"),
        ("plan with nothing stored", f"{seconds['plan']:,.1f} s"),
        ("starting Ray", f"{seconds['ray']:,.1f} s"),
        ("streams", f"{seconds['stream']:,.1f} s"),
        (
            "records per second, one checkpoint each",
            f"{found['records_per_second']:,.0f}",
        ),
        ("plan with everything stored", f"{seconds['plan again']:,.1f} s"),
        (f"scoring and measuring, {len(ATTACKS)} attacks", f"{seconds['score']:,.1f} s"),
        ("shift check, tests of sets, examples", f"{seconds['sum up']:,.1f} s"),
        ("writing scores and report", f"{seconds['write']:,.1f} s"),
        ("all of these", f"{sum(seconds.values()):,.0f} s"),
        ("driver's memory when the streams begin", f"{memory['before_stream']:,.0f} MiB"),
        ("the most while they run", f"{memory['stream_max']:,.0f} MiB"),
        ("when they end", f"{memory['stream_end']:,.0f} MiB"),
        ("growth per million records and checkpoint", f"{memory['slope_per_million']:,.1f} MiB"),
        ("the most in the whole run, reading and scoring too", f"{memory['most']:,.0f} MiB"),
        ("the most of any worker", f"{memory['worker']:,.0f} MiB"),
        *(
            (
                f"driver and largest worker while: {STEPS[what]}",
                f"{step['driver']:,.0f} and {step['worker']:,.0f} MiB",
            )
            for what, step in memory["most_by_step"].items()
            if what in STEPS
        ),
        ("a block, per record", f"{found['block_bytes']:,.0f} bytes"),
        ("blocks that were committed", f"{found['blocks']:,}"),
        ("files of evidence, at most", f"{files['most']:,}"),
        ("files of evidence, at the end", f"{files['end']:,}"),
        ("evidence, per record and checkpoint", f"{found['evidence_bytes']:,.0f} bytes"),
    ]
    if held := found["whole"]:
        kinds = {"scores": "scores", "results": "metrics and comparisons"}
        rows += [
            (f"{name} that differ without shards", f"{held[f'other_{kind}']:,} of {held[kind]:,}")
            for kind, name in kinds.items()
        ]
    return "\n".join(
        [
            f"{found['records']:,} records of {found['tokens']} tokens x {found['targets']} "
            f"checkpoints, {found['block_records']} records a block; {machine_line(found)}",
            "",
            "| what | measured |",
            "|---|---|",
            *(f"| {what} | {value} |" for what, value in rows),
        ]
    )
