"""Several ways to do one thing, timed in turn, and what is made of the timings.

Ratios are of one round each: a machine with other work slows all ways of a round alike.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

END = "<!-- end -->"


@dataclass(frozen=True)
class Timing:
    """How much was put to the model in so many seconds, and the seconds not counted.

    Attributes
    ----------
    asked : tokens, or pairs of image and timestep.
    """

    asked: int
    seconds: float
    start_up: float = 0.0

    @property
    def rate(self) -> float:
        """What was asked per second."""
        return self.asked / self.seconds


def timed(asked: int, run: Callable[[], Any]) -> Timing:
    """Time one call, to its end on the device."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Timing(asked, time.perf_counter() - started)


def run_rounds(
    ways: Mapping[str, Callable[[], Timing]], rounds: int, unit: str
) -> dict[str, list[Timing]]:
    """Take every way in every round, and say so."""
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in ways.items():
            timings[name].append(measure())
            rate = timings[name][-1].rate
            print(f"round {number + 1}: {name}: {rate:,.0f} {unit}/s", flush=True)
    return timings


def ratios(of: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """Median and range of the rounds' ratios of two ways' rates."""
    return spread([one / other for one, other in zip(of, to, strict=True)])


def rates(timings: Sequence[Timing]) -> list[float]:
    """What was asked per second, by round."""
    return [timing.rate for timing in timings]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def spread_cell(values: Mapping[str, float]) -> str:
    """A spread in a cell of a table."""
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


def machine_facts(load: float, libraries: Sequence[str]) -> dict[str, Any]:
    """What the timings were taken on.

    Parameters
    ----------
    load : the machine's load average before the run.
    """
    on_gpu = torch.cuda.is_available()
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor(),
        "load_before": load,
        "versions": {name: version(name) for name in libraries},
    }


def machine_line(found: Mapping[str, Any]) -> str:
    """Rounds, machine and versions of a summary, in words."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{found['rounds']} rounds; {machine['cores']} cores, {machine['threads']} threads, "
        f"load before the run {machine['load_before']:.1f}; {versions}."
    )


def write_page(page: Path, start: str, table: str) -> None:
    """Put a table between its markers in a page.

    Parameters
    ----------
    start : the marker before it; the one after it is :data:`END`.
    """
    before, marker, rest = page.read_text(encoding="utf-8").partition(start)
    if not marker or END not in rest:
        raise SystemExit(f"{page} has no place for the table: add the lines {start} and {END}")
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{start}\n\n{table}\n\n{END}{after}", encoding="utf-8")
