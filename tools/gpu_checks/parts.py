"""Parts of a check, taken one after another, each written down as soon as it is done."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Found = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What every part is given.

    Attributes
    ----------
    is_tiny : take models of a few thousand weights in place of real shapes.
    with_ray : whether parts may start Ray.
    """

    device: torch.device
    is_tiny: bool
    with_ray: bool
    folder: Path


@dataclass(frozen=True)
class Part:
    """One thing to check.

    Attributes
    ----------
    minutes : that it takes on a GPU, at most; with fewer left it is not begun.
    """

    name: str
    minutes: float
    run: Callable[[Setting], Found]


class Journal:
    """What was found so far, in ``gpu_check.json`` and ``gpu_check.md``.

    Parameters
    ----------
    minutes : for all parts together.
    """

    def __init__(self, out: Path, facts: Found, minutes: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.facts, self.minutes = out, facts, minutes
        self.started = time.monotonic()
        self.parts: list[Found] = []
        self._write()

    @property
    def minutes_left(self) -> float:
        return self.minutes - (time.monotonic() - self.started) / 60

    @property
    def failed(self) -> list[str]:
        """Names of the parts that raised."""
        return [part["name"] for part in self.parts if part["state"] == "failed"]

    def take(self, parts: Iterable[Part], setting: Setting) -> None:
        """Run parts; one that raises is written down as failed, and the next goes on."""
        for part in parts:
            if not setting.is_tiny and self.minutes_left < part.minutes:
                left = f"{self.minutes_left:.1f} minutes were left, it may take {part.minutes:g}"
                self._add(part.name, "left out", 0.0, {"why": left})
                continue
            started = time.monotonic()
            try:
                found, state = part.run(setting), "done"
            except Exception as error:  # whatever a kernel, a library or Ray raises
                traceback.print_exc()
                found, state = {"error": f"{type(error).__name__}: {error}"[:600]}, "failed"
            self._add(part.name, state, time.monotonic() - started, found)
            _free(setting.device)

    def _add(self, name: str, state: str, seconds: float, found: Found) -> None:
        self.parts.append(
            {"name": name, "state": state, "seconds": round(seconds, 1), "found": found}
        )
        print(f"{name}: {state} in {seconds:.1f} s: {json.dumps(found)}", flush=True)
        self._write()

    def _write(self) -> None:
        content = {"facts": self.facts, "parts": self.parts}
        _replace(self.out / "gpu_check.json", json.dumps(content, indent=1) + "\n")
        _replace(self.out / "gpu_check.md", page(self.facts, self.parts))


def page(facts: Found, parts: list[Found]) -> str:
    """What was found, as Markdown."""
    lines = ["# GPU check", "", ", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    for part in parts:
        lines += [f"## {part['name']}: {part['state']} ({part['seconds']:g} s)", ""]
        lines += ["| | |", "|---|---|"]
        for name, value in part["found"].items():
            cell = str(value).replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {name} | {cell} |")
        lines.append("")
    return "\n".join(lines)


def _replace(path: Path, content: str) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(content, "utf-8")
    beside.replace(path)


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def seconds_of(run: Callable[[], Any], device: torch.device, times: int = 3) -> float:
    """The least of a few, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - started)
    return min(found[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> float | None:
    """Most gibibytes held since the part began; None without a GPU."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def rounded(found: Found) -> Found:
    """Numbers to four digits, for the page."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in found.items()}
