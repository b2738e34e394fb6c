"""How fast raymia asks a language model, beside the bare forward pass and other ways, in one run.

    python jobs/benchmark.py                                  # shipped model and texts, a minute
    python jobs/benchmark.py --model FOLDER --texts FILE.jsonl --rounds 5 --json speed.json

Every round takes the ways in turn, so that a machine with other work slows all alike; the ratios
are of one round each, and their median and range are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

# Read once, by torch and tqdm: wait as raymia's workers do, and draw no bars.
os.environ |= {"GOMP_SPINCOUNT": "1000", "TQDM_DISABLE": "1"}

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

import raymia
from raymia.demo.text import ASSETS, audit_passages
from raymia.engine.cluster import connected
from raymia.engine.run import ask_models
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.inputs import resolve_inputs
from raymia.models.batching import length_sorted_batches, worthwhile_tokens
from raymia.models.causal_lm import CausalLM, load_causal_lm
from raymia.models.source import resolve_checkpoint
from raymia.neighbors.makers import neighbor_maker
from raymia.plan import plan_audit
from raymia.probes.base import Item
from raymia.records import read_texts, record_id
from raymia.spec import AuditSpec, ModelSpec, ResourcesSpec, SubstituteNeighbors
from raymia.spec_file import parse_spec

LIMIT, ADAPTER, RAY, HARNESS, ONE = (
    "bare forward pass", "raymia in process", "raymia through Ray", "lm-evaluation-harness",
    "one text per forward",
)  # fmt: skip
ASKED_FOR = {
    LIMIT: "logits, on batches packed beforehand",
    ADAPTER: "text to log p, moments, top-1",
    RAY: "text to stored evidence, one actor, from its first block's commit to its last",
    HARNESS: "text to summed log p (HF backend, loglikelihood_rolling)",
    ONE: "text to log p",
}
BLOCK_RECORDS = 32
START, END = "<!-- made by jobs/benchmark.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Bench:
    """What every way is given.

    Attributes
    ----------
    model : the model in this process, which all ways but Ray's use.
    records, neighbors : texts; of the neighbors, raymia stores sums alone.
    ids : the tokens of each record and then of each neighbor, as the model sees them.
    """

    model: CausalLM
    checkpoint: Any
    records: list[str]
    neighbors: list[str]
    ids: list[list[int]]
    batch_tokens: int
    on_gpu: bool

    @property
    def texts(self) -> list[str]:
        return [*self.records, *self.neighbors]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.ids))


@dataclass(frozen=True)
class Timing:
    """Tokens that were put to the model in so many seconds, and the seconds not counted."""

    tokens: int
    seconds: float
    start_up: float = 0.0

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


@torch.inference_mode()
def time_limit(bench: Bench) -> Timing:
    batches = []
    lengths, budget = [len(i) for i in bench.ids], bench.batch_tokens
    for rows in length_sorted_batches(lengths, budget, None, worthwhile_tokens(budget)):
        width = max(len(bench.ids[row]) for row in rows)
        padded = [bench.ids[row] + [0] * (width - len(bench.ids[row])) for row in rows]
        mask = [[1] * len(bench.ids[r]) + [0] * (width - len(bench.ids[r])) for r in rows]
        device = bench.model.device
        batches.append((torch.tensor(padded, device=device), torch.tensor(mask, device=device)))

    def run() -> None:
        for padded, mask in batches:
            bench.model.model(input_ids=padded, attention_mask=mask, use_cache=False)
        if bench.on_gpu:
            torch.cuda.synchronize()

    return timed(bench, run)


def time_adapter(bench: Bench) -> Timing:
    def run() -> None:
        bench.model.answer(bench.records, moments=True)
        bench.model.answer(bench.neighbors, moments=False)

    return timed(bench, run)


@torch.inference_mode()
def time_one_by_one(bench: Bench) -> Timing:
    def run() -> None:
        for text in bench.texts:
            tokens = bench.model.encode([text])[0][: bench.model.max_tokens]
            ids = torch.tensor([tokens], device=bench.model.device)
            logits = bench.model.model(input_ids=ids).logits[:, :-1].float()
            logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).cpu()

    return timed(bench, run)


def time_harness(bench: Bench) -> Timing:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    longest = max(map(len, bench.ids))
    harness = HFLM(
        pretrained=bench.model.model,
        tokenizer=bench.model.tokenizer,
        batch_size=max(1, bench.batch_tokens // longest),
    )
    requests = [Instance("loglikelihood_rolling", {}, (t,), n) for n, t in enumerate(bench.texts)]
    return timed(bench, lambda: harness.loglikelihood_rolling(requests, disable_tqdm=True))


def time_ray(bench: Bench) -> Timing:
    """Start-up is all before the first block is stored; the first block's tokens do not count."""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder, "records.jsonl")
        records.write_text("".join(json.dumps({"text": t}) + "\n" for t in bench.records), "utf-8")
        # The tokens with all that is asked of them, and the neighbors, once each.
        attacks, given = ["min_k_plus_plus"], {}
        if bench.neighbors:
            attacks.append("neighbor")
            given["neighbors"] = neighbors_of(bench).model_dump()
        pool = {"batch_tokens": bench.batch_tokens, "gpus": 0.5 if bench.on_gpu else 0}
        content = {
            "records": {"candidates": str(records)},
            "targets": [{"name": "target", "model": bench.checkpoint.path}],
            "attacks": attacks,
            **given,
            "resources": {"target": pool, "block_records": BLOCK_RECORDS},
            "store": str(Path(folder, "store")),
        }
        inputs = resolve_inputs(parse_spec(content, "benchmark"))
        store = EvidenceStore(inputs.spec.store)
        (plan,) = plan_audit(inputs, store)
        keys = [planned.key for planned in plan.target.probes]
        started = time.time()
        ask_models(inputs, store, inputs.spec.store, Console(file=StringIO()))
        ended = time.time()
        return steady_state(Path(folder, "store"), keys, started, ended)


def neighbors_of(bench: Bench) -> SubstituteNeighbors:
    """What the audit file says of the neighbors: words replaced, which takes no model's time."""
    count = len(bench.neighbors) // len(bench.records)
    return SubstituteNeighbors(kind="substitute", count=count)


def steady_state(store: Path, keys: Sequence[EvidenceKey], started: float, ended: float) -> Timing:
    """Read from the times of the store's files what was answered after the first block.

    Parameters
    ----------
    keys : of the probes, in the order in which a block is asked.
    """
    files = [
        (file.stat().st_mtime_ns / 1e9, place, file)
        for place, key in enumerate(keys)
        for file in (store / key.folder).glob("*.parquet")
    ]
    first = min(time for time, place, _ in files if place == len(keys) - 1)
    later = [(time, file) for time, _, file in files if time > first]
    if not later:
        raise SystemExit(f"give more than {2 * BLOCK_RECORDS} texts: Ray's first block is start-up")
    tokens = sum(tokens_asked(pq.read_table(file)) for _, file in later)
    seconds = max(later)[0] - first
    return Timing(tokens, seconds, start_up=ended - started - seconds)


def tokens_asked(answers: pa.Table) -> int:
    """Tokens put to the model; the first of a text has no answer."""
    if "token_count" in answers.column_names:
        return sum(count + 1 for count in answers["token_count"].to_pylist())
    return sum(len(ids) + 1 for ids in answers["token_ids"].to_pylist())


def timed(bench: Bench, run: Callable[[], Any]) -> Timing:
    started = time.perf_counter()
    run()
    return Timing(bench.tokens, time.perf_counter() - started)


def ways() -> dict[str, Callable[[Bench], Timing]]:
    """What there is to compare; lm-evaluation-harness where it is installed."""
    found = {LIMIT: time_limit, ADAPTER: time_adapter, RAY: time_ray}
    if find_spec("lm_eval") is not None:
        found[HARNESS] = time_harness
    return {**found, ONE: time_one_by_one}


def run_rounds(bench: Bench, rounds: int) -> dict[str, list[Timing]]:
    """Time every way in every round, after one round in this process that is not counted."""
    timings: dict[str, list[Timing]] = {name: [] for name in ways()}
    time_limit(bench)
    with connected(ResourcesSpec()):
        for number in range(rounds):
            for name, measure in ways().items():
                timings[name].append(measure(bench))
                rate = timings[name][-1].rate
                print(f"round {number + 1}: {name}: {rate:,.0f} tokens/s", flush=True)
    return timings


def summary(bench: Bench, timings: dict[str, list[Timing]], load: float) -> dict[str, Any]:
    """Everything that was measured, with the ratios to the limit, round by round."""
    limit = [t.rate for t in timings[LIMIT]]
    return {
        "model": Path(bench.checkpoint.path).name,
        "records": len(bench.records),
        "neighbors": len(bench.neighbors),
        "tokens": bench.tokens,
        "batch_tokens": bench.batch_tokens,
        "rounds": len(limit),
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if bench.on_gpu else platform.processor(),
            "load_before": load,
            "versions": {n: version(n) for n in ("raymia", "torch", "transformers", "ray")},
        },
        "ways": {
            name: {
                "tokens_per_second": [round(t.rate, 1) for t in taken],
                "start_up_seconds": [round(t.start_up, 1) for t in taken],
                "share_of_limit": spread([t.rate / of for t, of in zip(taken, limit, strict=True)]),
                "ray_is_faster": spread(
                    [r.rate / t.rate for r, t in zip(timings[RAY], taken, strict=True)]
                ),
            }
            for name, taken in timings.items()
        },
        "missing": [] if HARNESS in timings else [f"{HARNESS}: not installed"],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    machine = found["machine"]
    lines = [
        f"{found['model']}: {found['records']:,} texts and {found['neighbors']:,} neighbors, "
        f"{found['tokens']:,} tokens, "
        f"{found['rounds']} rounds; {machine['cores']} cores, {machine['threads']} threads, "
        f"load before the run {machine['load_before']:.1f}; "
        + ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        + ".",
        "",
        "| way | asked for | tokens/s | share of the limit | Ray over it |",
        "|---|---|---|---|---|",
    ]
    for name, way in found["ways"].items():
        rate = statistics.median(way["tokens_per_second"])
        cells = [name, ASKED_FOR[name], f"{rate:,.0f}"]
        cells += [
            f"{s['median']:.2f} ({s['min']:.2f} to {s['max']:.2f})"
            for s in (way["share_of_limit"], way["ray_is_faster"])
        ]
        lines.append(f"| {' | '.join(cells)} |")
    start_up = statistics.median(found["ways"][RAY]["start_up_seconds"])
    lines += ["", f"Left out of Ray's rate: {start_up:.0f} s until the first block was stored."]
    lines += [f"Not measured: {line}." for line in found["missing"]]
    return "\n".join(lines)


def write_page(page: Path, table: str) -> None:
    """Put the table between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def make_bench(
    model: str | None, texts: str | None, column: str, batch_tokens: int, neighbors: int
) -> Bench:
    """Load the model; the shipped base and Austen's passages where none is given."""
    folder = model or str(Path(raymia.__file__).parent / "demo" / ASSETS / "models" / "base")
    given = audit_passages()[:400] if texts is None else [r.text for r in read_texts(texts, column)]
    usable = list(dict.fromkeys(t for t in given if isinstance(t, str) and t.strip()))
    on_gpu = torch.cuda.is_available()
    checkpoint = resolve_checkpoint(ModelSpec(model=folder), "--model", on_gpu=on_gpu)
    loaded = load_causal_lm(checkpoint, batch_tokens=batch_tokens)
    kept = [t for t, ids in zip(usable, loaded.encode(usable), strict=True) if len(ids) > 1]
    made = make_neighbors(kept, neighbors)
    ids = [tokens[: loaded.max_tokens] for tokens in loaded.encode([*kept, *made])]
    return Bench(loaded, checkpoint, kept, made, ids, batch_tokens, on_gpu)


def make_neighbors(records: Sequence[str], count: int) -> list[str]:
    """The neighbors that the audit through Ray makes too."""
    if not count:
        return []
    spec = SubstituteNeighbors(kind="substitute", count=count)
    maker = neighbor_maker(spec, AuditSpec.model_fields["seed"].default, None, batch_tokens=0)
    items = [Item(record_id(text), i, text) for text in records for i in maker.probe.indices()]
    texts: list[str | None] = maker.probe.ask(maker.loader.load(), items)["payload"].to_pylist()
    return [text for text in texts if text is not None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write what was asked for."""
    parser = argparse.ArgumentParser(description="Measure how fast raymia asks a language model.")
    parser.add_argument("--model", metavar="FOLDER", help="default: the demo's base")
    parser.add_argument(
        "--texts", metavar="FILE", help="JSONL, CSV or Parquet; default: the demo's"
    )
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--neighbors", type=int, default=2, help="of each text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=8_192)
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything measured")
    parser.add_argument("--page", metavar="FILE.md", type=Path, help="put the table into a page")
    given = parser.parse_args(arguments)
    load = os.getloadavg()[0]
    torch.set_num_threads(os.cpu_count() or 1)
    bench = make_bench(
        given.model, given.texts, given.text_column, given.batch_tokens, given.neighbors
    )
    found = summary(bench, run_rounds(bench, given.rounds), load)
    table = page_table(found)
    print(table)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if given.page:
        write_page(given.page, table)


if __name__ == "__main__":
    main()
