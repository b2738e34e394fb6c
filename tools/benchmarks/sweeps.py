"""How fast a sweep tries settings, on made-up evidence in a real store; no model is asked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

import raymia
from benchmarks.measure import machine_facts, machine_line
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.plan.planning import plan_audit
from raymia.plan.stages import PlannedQuestion
from raymia.questions.text import SUM_SCHEMA, TOKEN_SCHEMA, NeighborQuestion, TokenQuestion
from raymia.run.sweep import run_sweep
from raymia.spec import AuditSpec
from raymia.spec.file import parse_spec
from raymia.sweep.evaluate import Setting
from raymia.sweep.places import read_places
from raymia.sweep.plan import plan_sweep
from raymia.sweep.space import check_sweep
from raymia.sweep.work import Listed, Terms, Worker
from raymia.util.draws import generator

START = "<!-- made by tools/benchmark.py --sweep -->"
LIBRARIES = ("raymia", "ray", "numpy")
MODEL = Path(raymia.__file__).parent / "demo" / "assets" / "models" / "base"
BLOCK = 500
TOKENS = (16, 112)
"""Tokens of a record, from and to."""
SHIFT = 0.15
"""By how much a member's mean log-probability is higher."""


def store_made_evidence(inputs: Inputs, store: EvidenceStore) -> int:
    """Answer everything that an audit of texts still asks of tokens and neighbors, with made
    numbers; members score a little higher under targets.

    Returns
    -------
    How many answers were stored.
    """
    members = dict(
        zip(inputs.records.ids, inputs.records.table["is_member"].to_pylist(), strict=True)
    )
    stored = 0
    for plan in plan_audit(inputs, store):
        for stage in (plan.target, *plan.references.values()):
            for planned in stage.questions:
                stored += planned.to_ask
                known = members if stage.role == "target" else {}
                for block in _blocks(planned):
                    store.commit(planned.key, _answers(planned, stage.name, block, known))
    return stored


def _blocks(planned: PlannedQuestion) -> list[list[tuple[str, int]]]:
    pairs = list(planned.missing.pairs())
    return [pairs[start : start + BLOCK] for start in range(0, len(pairs), BLOCK)]


def _answers(
    planned: PlannedQuestion,
    model: str,
    block: Sequence[tuple[str, int]],
    is_member: Mapping[str, bool | None],
) -> pa.Table:
    if not isinstance(planned.question, TokenQuestion | NeighborQuestion):
        raise ValueError(f"no answers are made up for {planned.label}")
    draws = generator("made evidence", model, *block[0])
    lengths = draws.integers(*TOKENS, size=len(block))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shift = np.repeat([SHIFT * bool(is_member.get(record)) for record, _ in block], lengths)
    mean = -draws.uniform(1.0, 4.0, offsets[-1])
    log_prob = np.minimum(mean + shift + draws.normal(0.0, 1.5, offsets[-1]), -1e-3)
    columns: dict[str, Any] = {
        "record_id": [record for record, _ in block],
        "neighbor": [index for _, index in block],
        "truncated": [False] * len(block),
        "error": [None] * len(block),
    }
    if isinstance(planned.question, NeighborQuestion):
        columns["log_prob_sum"] = np.add.reduceat(log_prob, offsets[:-1])
        columns["token_count"] = lengths
        return pa.table({n: columns[n] for n in SUM_SCHEMA.names}, schema=SUM_SCHEMA)
    of_tokens = {
        "token_ids": np.zeros(offsets[-1]),
        "log_prob": log_prob,
        "mean_log_prob": mean,
        "std_log_prob": draws.uniform(0.5, 2.0, offsets[-1]),
        "is_top1": log_prob > -1.0,
    }
    for name, values in of_tokens.items():
        kind = TOKEN_SCHEMA.field(name).type.value_type
        flat = pa.array(values).cast(kind)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    return pa.table({n: columns[n] for n in TOKEN_SCHEMA.names}, schema=TOKEN_SCHEMA)


def make_audit(records: int, settings: int, folder: Path) -> AuditSpec:
    """An audit of made-up texts, half of them members, with a sweep of so many settings: a quarter
    each of Min-K% and Min-K%++, a half of SURP."""
    half, quarter = records // 2, settings // 4
    texts = [{"text": f"record {n}: {'word ' * (n % 40)}"} for n in range(records)]
    for name, part in (("members", texts[:half]), ("non_members", texts[half:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    shares = [round((n + 1) / quarter, 6) for n in range(quarter)]
    bounds = [2.0 + n / 10 for n in range(10)]
    content = {
        "name": "made-up",
        "output": str(folder / "run"),
        "store": str(folder / "store"),
        "records": {n: str(folder / f"{n}.jsonl") for n in ("members", "non_members")},
        "targets": [{"name": "target", "model": str(MODEL)}],
        "sweep": {
            "attacks": {
                "min_k": {"share": {"grid": shares}},
                "min_k_plus_plus": {"share": {"grid": shares}},
                "surp": {
                    "share": {"grid": shares[:: max(1, 10 * quarter // (settings // 2))]},
                    "max_entropy": {"grid": bounds},
                },
            },
            "objective": {"metric": "tpr", "fpr": 0.01},
        },
    }
    return parse_spec(content, "benchmark")


def measure(spec: AuditSpec) -> dict[str, Any]:
    """Try all settings, first in this process alone and then through Ray Tune, each anew.

    Returns
    -------
    Seconds: ``compute`` of one process with the evidence in memory, and its ``cpu`` time, which
    other work on the machine does not lengthen; ``ray`` to start Ray;
    ``sweep`` of the whole sweep on that Ray, from reading the files to writing the page; ``again``
    of the same, with all settings known. And how many settings and records there were.
    """
    from raymia.engine.on_ray.cluster import connected

    store, quiet = EvidenceStore(spec.store), Console(file=StringIO())
    plan = plan_sweep(check_sweep(spec), store)
    answers = store_made_evidence(plan.audits[0].inputs, store)
    places = read_places(plan, [made.as_it_is_now() for made in plan.plans], store)
    by_key = {swept.key: swept for swept in plan.sweep.attacks}
    settings = [
        Setting(place, parameters)
        for (_, key), found in places.found.items()
        for place in found
        for parameters in by_key[key].settings
    ]
    objective = plan.sweep.spec.objective
    rates = (*spec.metrics.fprs, objective.fpr)
    terms = Terms(f"{spec.store}-alone", "text", plan.halves, rates, objective)
    started, used = time.perf_counter(), time.process_time()
    Worker(terms, places.evidence.__getitem__, lambda *_: None).go_through(Listed(tuple(settings)))
    seconds = {"compute": time.perf_counter() - started, "cpu": time.process_time() - used}
    started = time.perf_counter()
    with connected(spec.resources):
        seconds["ray"] = time.perf_counter() - started
        for name in ("sweep", "again"):
            started = time.perf_counter()
            result = run_sweep(spec, quiet)
            seconds[name] = time.perf_counter() - started
            assert result.asked == 0
            assert result.tried_now == (len(settings) if name == "sweep" else 0)
    return {
        "records": answers,
        "settings": len(settings),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "queries": result.asked,
        "best": {w.label: w.parameters for w in result.winners},
    }


def summary(found: dict[str, Any], load: float) -> dict[str, Any]:
    """What was measured, and on what."""
    return {**found, "rounds": 1, "machine": machine_facts(load, LIBRARIES)}


def page_table(found: Mapping[str, Any]) -> str:
    """The timings in a table."""
    seconds, settings = found["seconds"], found["settings"]
    cores = os.cpu_count()
    return "\n".join(
        [
            f"{settings:,} settings on {found['records']:,} records; {machine_line(found)}",
            "",
            "| what | seconds | ms per setting |",
            "|---|---|---|",
            f"| one process, evidence in memory | {seconds['compute']:.1f} | "
            f"{1000 * seconds['compute'] / settings:.1f} |",
            f"| CPU time of the same | {seconds['cpu']:.1f} | "
            f"{1000 * seconds['cpu'] / settings:.1f} |",
            f"| starting Ray | {seconds['ray']:.1f} | |",
            f"| the sweep through Ray Tune on {cores} cores, files to page | "
            f"{seconds['sweep']:.1f} | {1000 * seconds['sweep'] / settings:.1f} |",
            f"| the same sweep again | {seconds['again']:.1f} | |",
            "",
            f"Questions put to a model: {found['queries']}.",
        ]
    )
