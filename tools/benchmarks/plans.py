"""What `raymia plan` says that an audit will take, beside what it took."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measure import machine_facts
from raymia.engine.base import engine
from raymia.engine.board import Line
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.estimate import AuditEstimate, estimate
from raymia.plan.planning import plan_audit
from raymia.plan.stages import Preparation, TargetPlan
from raymia.run.asking import ask
from raymia.run.calibrate import calibrate
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec

START = "<!-- made by tools/benchmark.py --plan -->"
LIBRARIES = ("raymia", "ray", "torch", "transformers", "diffusers")
CALIBRATION = 32


@dataclass
class Spans:
    """From when to when each stage was at work; given to the board as what looks at its lines.

    Attributes
    ----------
    spans : start and end by stage, in seconds of one clock. A stage's start is its first answer's
        time less the seconds that the answer took.
    """

    actors: Mapping[str, int]
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    _done: dict[str, int] = field(default_factory=dict)

    def __call__(self, lines: Mapping[str, Line]) -> None:
        now = time.monotonic()
        for name in self.actors.keys() & lines.keys():
            line = lines[name]
            if line.done > self._done.get(name, 0):
                start, _ = self.spans.get(name, (now - line.seconds / self.actors[name], now))
                self.spans[name] = (start, now)
                self._done[name] = line.done


def measure(files: Sequence[Path], load: float) -> dict[str, Any]:
    """Calibrate, plan and run each audit, in a new store.

    Parameters
    ----------
    files : audit files; what they say of stores and outputs is not touched.
    """
    found = []
    for file in files:
        with tempfile.TemporaryDirectory() as folder:
            spec = load_spec(file).model_copy(update={"store": folder})
            found.append(measure_one(spec))
    return {"audits": found, "machine": machine_facts(load, LIBRARIES)}


def measure_one(spec: AuditSpec) -> dict[str, Any]:
    """What was said and what was taken, in seconds: of each part, and of all together."""
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    quiet = Console(file=StringIO())
    started = time.monotonic()
    calibrate(inputs, store, CALIBRATION, quiet)
    calibrated = time.monotonic()
    plans = plan_audit(inputs, store)
    said = estimate(inputs, plans, store)
    spans = Spans({part.name: part.actors for part in said.stages})
    print(f"{spec.name}: {said.wall_seconds:.0f} s are said", flush=True)
    run_started = time.monotonic()
    with engine(spec.resources, spec.store, quiet) as start:
        work = ask(plans, store, start, spans)
    spans(work.lines)
    run_seconds = time.monotonic() - run_started
    prepared = dict(preparations_of(plans, store))
    taken = {part.name: work.lines[part.name].seconds for part in said.stages if part.to_ask}
    return {
        "name": spec.name,
        "records": len(inputs.records.ids),
        "calibrated_on": min(CALIBRATION, len(inputs.records.ids)),
        "calibration_seconds": calibrated - started,
        "run_seconds": run_seconds,
        "parts": parts_of(said, prepared | taken),
        "wall": {
            "said": said.wall_seconds,
            "taken": sum(prepared.values()) + covered(spans.spans.values()),
        },
    }


def preparations_of(
    plans: Iterable[TargetPlan], store: EvidenceStore
) -> Iterable[tuple[str, float]]:
    """What each reference took, once."""

    def seconds(preparation: Preparation) -> float:
        facts = store.prepared_facts(preparation.recipe.key)
        assert facts is not None, "the run has made it"
        return float(facts.get("writing_seconds", 0.0) + facts["seconds"])

    for plan in plans:
        for preparation in plan.preparations:
            yield f"prepare {preparation.stage_name(plan.name)}", seconds(preparation)


def parts_of(said: AuditEstimate, taken: Mapping[str, float]) -> list[dict[str, Any]]:
    """What was said of each part with work to do, and what it took."""
    return [
        {"name": part.name, "said": part.seconds, "taken": taken[part.name]}
        for part in (*said.preparations, *said.stages) if part.to_ask
    ]  # fmt: skip


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of the spans lasted."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def page_table(found: Mapping[str, Any]) -> str:
    """The table of docs/scaling.md."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines = ["| audit | part | said | taken | said / taken |", "|---|---|---|---|---|"]
    for audit in found["audits"]:
        for part in audit["parts"]:
            lines.append(_row(audit["name"], part["name"], part["said"], part["taken"]))
        lines.append(_row(audit["name"], "**wall time**", **audit["wall"]))
    lines += [
        "",
        *(
            f"`{audit['name']}`: {audit['records']:,} records; calibrated on "
            f"{audit['calibrated_on']} of them in {audit['calibration_seconds']:.0f} s; "
            f"the run took {audit['run_seconds']:.0f} s with starting Ray and "
            "loading models, which is in none of the rows."
            for audit in found["audits"]
        ),
        f"{machine['cores']} cores, load before the run {machine['load_before']:.1f}; {versions}.",
    ]
    return "\n".join(lines)


def _row(audit: str, part: str, said: float, taken: float) -> str:
    return f"| {audit} | {part} | {said:.1f} s | {taken:.1f} s | {said / taken:.2f} |"
