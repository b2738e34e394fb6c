"""How busy three pools keep devices that are simulated: models that sleep for tokens / rate.

All else is an audit's own: texts are tokenized and batched, answers are checked, encoded and
committed to a store on this disk, or in a bucket whose every request takes a tenth of a second.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.measure import machine_facts, machine_line
from benchmarks.pipeline import LIBRARIES, MODEL
from benchmarks.slow_store import BUCKET
from raymia.engine.board import Counts
from raymia.engine.here import stream as here
from raymia.engine.stream import Stream
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.model import CausalLM, Columns
from raymia.models.causal.reading import Bools, PlainReader
from raymia.models.causal.readings import Readings
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.loaders import Loader
from raymia.plan.planning import plan_audit
from raymia.spec import AuditSpec
from raymia.spec.file import parse_spec

START = "<!-- made by tools/benchmark.py --simulated -->"
RATES = (20_000, 200_000)
"""Tokens a second of each device."""
SLOW_SECONDS = 0.1
"""That each request to the slow store takes beside what a local server does."""
WORDS = 45
TOKENS = 92
"""Of a text, about."""
BLOCK_SECONDS = 4.0
"""Of device time."""
BLOCKS = 12
POOLS = 3


class Device(CausalLM):
    """A model that is busy for as long as its rate says, and holds no lock meanwhile.

    Parameters
    ----------
    log : is written when it was busy, a line for each time that it was asked.
    """

    def __init__(self, tokenizer: Any, rate: float, batch_tokens: int, log: Path) -> None:
        self.tokenizer, self.batch_tokens, self.one_by_one = tokenizer, batch_tokens, False
        self.readings, self.packs = Readings(PlainReader(tokenizer)), True
        self.max_tokens, self.apart, self._lead = None, None, []
        self._twins = None
        self._rate, self._log = rate, log
        self._busy, self._last = 0.0, 0.0
        self._first: float | None = None
        self._drawn = -np.random.default_rng(0).exponential(3.0, 2**12).astype(np.float32)

    @property
    def rows(self) -> int:
        return len(self.tokenizer)

    def answer(self, texts: Sequence[str], **options: Any) -> list[Any]:
        """See :meth:`raymia.models.causal.model.CausalLM.answer`."""
        self._busy, self._first = 0.0, None
        found: list[Any] = super().answer(texts, **options)
        with self._log.open("a", encoding="ascii") as file:
            file.write(json.dumps([self._first, self._last, self._busy]) + "\n")
        return found

    def _forward(
        self, ids: list[list[int]], wanted: list[Bools | None], moments: bool
    ) -> list[Columns]:
        del wanted, moments
        self._first = self._first or time.time()
        seconds = sum(map(len, ids)) / self._rate
        time.sleep(seconds)
        self._last = time.time()
        self._busy += seconds
        return [
            (np.array(tokens[1:], np.int32), drawn, drawn, -drawn, drawn > -1)
            for tokens in ids for drawn in [self._drawn[: len(tokens) - 1]]
        ]  # fmt: skip


@dataclass(frozen=True)
class DeviceLoader(Loader):
    """Stands in for the loader of a checkpoint, whose weights are not read."""

    checkpoint: CausalCheckpoint
    rate: float
    batch_tokens: int
    log: Path

    def load(self) -> Device:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        return Device(tokenizer, self.rate, self.batch_tokens, self.log)


def make_audit(records: int, block_records: int, store: str, folder: Path) -> AuditSpec:
    """An audit of made-up texts on a target and two references, each of which is a pool."""
    draws = np.random.default_rng(0)
    words = np.array((__doc__ or "").split())
    texts = [f"{n} {' '.join(row)}" for n, row in enumerate(draws.choice(words, (records, WORDS)))]
    halves = {"members": texts[::2], "non_members": texts[1::2]}
    for name, half in halves.items():
        pq.write_table(pa.table({"text": half}), folder / f"{name}.parquet")
    model = {"model": str(MODEL)}
    content = {
        "name": "simulated",
        "output": str(folder / "run"),
        "store": store,
        "records": {name: str(folder / f"{name}.parquet") for name in halves},
        "targets": [{"name": "target", **model}],
        "references": {"one": {**model, "max_tokens": 98}, "two": {**model, "max_tokens": 99}},
        "attacks": ["ratio"],
        "resources": {"block_records": block_records},
    }
    return parse_spec(content, "benchmark")


@contextmanager
def slow_bucket(delay: float) -> Iterator[str]:
    """A bucket of a server that takes its time; where folders in it begin.

    One for all audits of this process: its endpoint is kept by whatever has asked it.
    """
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("slow_store.py")), str(delay)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        os.environ |= json.loads(server.stdout.readline())
        yield f"s3://{BUCKET}/"
    finally:
        server.terminate()
        server.wait()


def run_on_ray(streams: Sequence[Stream], inputs: Inputs, spec: AuditSpec) -> None:
    """Take streams through pools of one actor each."""
    from raymia.engine.on_ray.board import started
    from raymia.engine.on_ray.cluster import connected
    from raymia.engine.on_ray.machines import machines_for
    from raymia.engine.on_ray.stream import run_stream

    quiet, resources = Console(file=StringIO()), spec.resources
    with connected(resources) as cluster, started(quiet) as board:
        machines = partial(
            machines_for, cluster=cluster, console=quiet, wait_minutes=resources.wait_minutes
        )
        for stream in streams:
            run_stream(
                stream, inputs.payloads, store_url=spec.store,
                block_records=partial(_records, spec), cluster=cluster, machines=machines,
                wait_minutes=resources.wait_minutes, board=board,
            )  # fmt: skip


def run_here(streams: Sequence[Stream], inputs: Inputs, spec: AuditSpec) -> None:
    """The same in this process, one pool after another."""
    for stream in streams:
        here.run_stream(
            stream, inputs.payloads, store_url=spec.store,
            block_records=_records(spec), board=Counts(),
        )  # fmt: skip


def _records(spec: AuditSpec) -> int:
    assert isinstance(spec.resources.block_records, int)
    return spec.resources.block_records


ENGINES = {"ray": run_on_ray, "local": run_here}


def measure_one(
    engine: str, rate: float, bucket: str | None, block_seconds: float, blocks: int
) -> dict[str, Any]:
    """Take one audit through its pools, and see how busy they were.

    Parameters
    ----------
    bucket : where the store lies; None for this disk.
    """
    block_records = max(1, round(block_seconds * rate / TOKENS))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = str(folder / "store") if bucket is None else bucket + folder.name
        spec = make_audit(blocks * block_records, block_records, store, folder)
        inputs = resolve_inputs(spec)
        logs: list[Path] = []

        def simulated(stage: Any) -> Any:
            logs.append(folder / f"{len(logs)}.jsonl")
            assert isinstance(stage.loader.checkpoint, CausalCheckpoint)
            loader = DeviceLoader(stage.loader.checkpoint, rate, stage.pool.batch_tokens, logs[-1])
            return replace(stage, loader=loader)

        plan = plan_audit(inputs, EvidenceStore(store))
        streams = [
            Stream(number, [simulated(stage) for stage in stages])
            for number, stages in enumerate(plan.streams)
        ]
        ENGINES[engine](streams, inputs, spec)
        asked = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    assert len(asked) == POOLS
    # In one process they are one device, which is asked by one pool after another.
    devices = asked if engine == "ray" else [[line for lines in asked for line in lines]]
    shares = [
        sum(busy for _, _, busy in lines)
        / (max(last for _, last, _ in lines) - min(first for first, _, _ in lines))
        for lines in devices
    ]
    return {
        "engine": engine,
        "rate": rate,
        "block_records": block_records,
        "blocks": [len(lines) for lines in asked],
        "busy": [round(share, 3) for share in shares],
    }


def measure(block_seconds: float = BLOCK_SECONDS, blocks: int = BLOCKS) -> list[dict[str, Any]]:
    """Every engine at every rate with every store."""
    found = []
    with slow_bucket(SLOW_SECONDS) as bucket:
        stores = {"local": None, "slow S3": bucket}
        for engine, rate, store in product(ENGINES, RATES, stores):
            row = measure_one(engine, rate, stores[store], block_seconds, blocks)
            found.append({**row, "store": store})
            print(f"{engine}, {rate:,} tokens/s, {store}: {row['busy']}", flush=True)
    return found


def summary(rows: list[dict[str, Any]], load: float) -> dict[str, Any]:
    """What was measured, and where."""
    return {"rows": rows, "rounds": 1, "machine": machine_facts(load, LIBRARIES)}


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    lines = [
        f"Three simulated devices; {machine_line(found)}",
        "",
        "| engine | tokens/s of a device | store | records per block | blocks "
        "| busy share of the slowest pool |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['engine']}` | {row['rate']:,} | {row['store']} | {row['block_records']:,} "
        f"| {row['blocks'][0]} | {min(row['busy']):.2f} |"
        for row in found["rows"]
    ]
    return "\n".join(lines)
