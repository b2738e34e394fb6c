"""Measuring many stored scores on Ray: how long it takes, and how much memory all of it takes."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.measure import machine_facts, machine_line
from raymia.engine.base import engine
from raymia.results.scores import SCORES_SCHEMA
from raymia.scoring.stored import reduce_scores
from raymia.spec import ResourcesSpec

START = "<!-- made by tools/benchmark.py --reduce -->"
LIBRARIES = ("raymia", "ray", "numpy", "pyarrow", "scikit-learn")
ROWS_AT_ONCE = 2**20
SAMPLE_SECONDS = 0.5
GIBIBYTE = 2**30
HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
SHIFT = 0.25
"""Standard deviations that the first attack tells members apart by; each other by as much more."""


@dataclass(frozen=True)
class Made:
    """A table of made-up scores in a file.

    Attributes
    ----------
    records, attacks, targets : a score for each combination.
    """

    path: Path
    records: int
    attacks: int
    targets: int

    @property
    def rows(self) -> int:
        return self.records * self.attacks * self.targets


@dataclass
class Watch:
    """What this process and all that it started took.

    Attributes
    ----------
    peak : the most memory that all held at once, in bytes. Pages that processes share, those of
        Ray's object store among them, are counted once: each process counts its proportional share
        (PSS).
    driver_peak : the same of this process alone.
    cpu_seconds : by process, since it was first seen.
    """

    peak: int = 0
    driver_peak: int = 0
    cpu_seconds: dict[int, float] = field(default_factory=dict)
    _before: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def sample(self) -> None:
        own = os.getpid()
        held = {pid: share_of_memory(pid) for pid in (own, *descendants(own))}
        self.peak = max(self.peak, sum(held.values()))
        self.driver_peak = max(self.driver_peak, held[own])
        for pid in held:
            spent = cpu_seconds(pid)
            # What was started since has spent all its time since.
            before = self._before.setdefault(pid, 0.0 if self.cpu_seconds else spent)
            self.cpu_seconds[pid] = max(self.cpu_seconds.get(pid, 0.0), spent - before)


@contextmanager
def watched() -> Iterator[Watch]:
    """Sample while the block runs."""
    watch = Watch()

    def look() -> None:
        while not watch._stop.wait(SAMPLE_SECONDS):
            watch.sample()

    watch.sample()
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch._stop.set()
        thread.join()


def share_of_memory(pid: int) -> int:
    """A process's proportional share of memory in bytes; 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def cpu_seconds(pid: int) -> float:
    """What a process has computed, in seconds; 0 for one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and that these started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, unseen = [], [pid]
    while unseen:
        own = children.get(unseen.pop(), [])
        found += own
        unseen += own
    return found


def make_scores(path: Path, records: int, attacks: int, targets: int, seed: int = 0) -> Made:
    """Write made-up scores, row group by row group: half the records members, normal scores.

    Ids are as raymia's, 32 hexadecimal digits, and the same for every attack and target.
    """
    with pq.ParquetWriter(path, SCORES_SCHEMA, compression="zstd") as writer:
        for target in range(targets):
            for attack in range(attacks):
                draws = np.random.default_rng((seed, target, attack))
                for start in range(0, records, ROWS_AT_ONCE):
                    size = min(ROWS_AT_ONCE, records - start)
                    is_member = np.arange(start, start + size) % 2 == 0
                    scores = draws.normal(size=size) + SHIFT * (attack + 1) * is_member
                    columns = [
                        pa.repeat(f"target {target}", size),
                        pa.repeat(f"attack {attack}", size),
                        hex_ids(np.random.default_rng((seed, start)), size),
                        pa.array(is_member),
                        pa.array(scores),
                        pa.nulls(size, pa.float64()),
                    ]
                    writer.write_table(pa.table(columns, schema=SCORES_SCHEMA))
    return Made(path, records, attacks, targets)


def hex_ids(draws: np.random.Generator, size: int) -> pa.Array:
    """Ids of 128 random bits."""
    digits = HEX[draws.integers(0, 16, (size, 32), np.uint8)]
    offsets = np.arange(0, 32 * size + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(size, pa.py_buffer(offsets), pa.py_buffer(digits))


def measure(made: Made, rounds: int, load: float) -> dict[str, Any]:
    """Reduce the scores, round after round, each on a Ray of its own."""
    seconds, start_up, computed, peaks, driver_peaks, area = [], [], [], [], [], math.nan
    for number in range(rounds):
        with watched() as watch:
            began = time.perf_counter()
            place = str(made.path.parent)
            with engine(ResourcesSpec(), place, Console(stderr=True)) as start:
                executor = start()
                start_up.append(time.perf_counter() - began)
                with executor.reporting() as board:
                    reduction = reduce_scores(
                        str(made.path), workers=executor.workers(board, place)
                    )
                seconds.append(time.perf_counter() - began)
        assert reduction.rows == made.rows
        first: Any = reduction.judged["target 0", "attack 0"].metrics
        area = first.auc.value
        computed.append(sum(watch.cpu_seconds.values()))
        peaks.append(watch.peak)
        driver_peaks.append(watch.driver_peak)
        print(
            f"round {number + 1}: {made.rows:,} scores in {seconds[-1]:.1f} s, "
            f"at most {watch.peak / GIBIBYTE:.2f} GiB",
            flush=True,
        )
    return {
        "records": made.records,
        "attacks": made.attacks,
        "targets": made.targets,
        "scores": made.rows,
        "file_bytes": made.path.stat().st_size,
        "rounds": rounds,
        "seconds": [round(s, 1) for s in seconds],
        "start_up_seconds": [round(s, 1) for s in start_up],
        "cpu_seconds": [round(s, 1) for s in computed],
        "peak_gib": [round(peak / GIBIBYTE, 2) for peak in peaks],
        "driver_peak_gib": [round(peak / GIBIBYTE, 2) for peak in driver_peaks],
        "auc": area,
        "auc_by_scikit_learn": scikit_learn_auc(made),
        "machine": machine_facts(load, LIBRARIES),
    }


def scikit_learn_auc(made: Made) -> float:
    """The AUC of the first attack on the first target by other code, from the same file."""
    from sklearn.metrics import roc_auc_score

    own = [("target", "==", "target 0"), ("attack", "==", "attack 0")]
    table = pq.read_table(made.path, columns=["is_member", "score"], filters=own)
    labels: npt.NDArray[np.bool_] = table["is_member"].to_numpy()
    return float(roc_auc_score(labels, table["score"].to_numpy()))


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    difference = abs(found["auc"] - found["auc_by_scikit_learn"])
    lines = [
        f"{found['records']:,} records x {found['attacks']} attacks x {found['targets']} targets "
        f"in a Parquet file of {found['file_bytes'] / GIBIBYTE:.2f} GiB; {machine_line(found)}",
        "",
        "| round | scores | seconds | of these, until Ray was up | CPU seconds of all processes "
        "| most memory of all processes | of these, the driver |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = ("seconds", "start_up_seconds", "cpu_seconds", "peak_gib", "driver_peak_gib")
    for number, row in enumerate(zip(*(found[c] for c in columns), strict=True), 1):
        seconds, start_up, computed, peak, driver = row
        lines.append(
            f"| {number} | {found['scores']:,} | {seconds:.1f} | {start_up:.1f} | {computed:.1f} "
            f"| {peak:.2f} GiB | {driver:.2f} GiB |"
        )
    lines += [
        "",
        f"AUC of the first attack {found['auc']:.12f}; scikit-learn's differs by {difference:.1e}.",
    ]
    return "\n".join(lines)
