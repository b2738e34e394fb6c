"""How fast raymia asks a language model, beside the bare forward pass and other ways."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

import raymia
from benchmarks.audits import time_audit
from benchmarks.measure import (
    Timing,
    machine_facts,
    machine_line,
    rates,
    ratios,
    run_rounds,
    spread_cell,
    timed,
)
from raymia.demo.text import ASSETS, audit_passages
from raymia.engine.on_ray.cluster import connected
from raymia.models.batching import length_sorted_batches, worthwhile_tokens
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.neighbors.makers import neighbor_maker
from raymia.questions.base import Item
from raymia.records.texts import record_id, texts_among
from raymia.spec import (
    AuditSpec,
    EngineKind,
    ModelSpec,
    PoolSpec,
    ResourcesSpec,
    SubstituteNeighbors,
)

LIMIT, FAST, ADAPTER, PADDED, RAY, LOCAL, HARNESS, ONE = (
    "bare forward pass", "bare, raymia's layers", "raymia in process", "the same, texts padded",
    "raymia through Ray", "raymia with engine: local", "lm-evaluation-harness",
    "one text per forward",
)  # fmt: skip
ASKED_FOR = {
    LIMIT: "logits, on batches packed beforehand",
    FAST: "the same of the model as raymia loads it",
    ADAPTER: "text to log p, moments, top-1",
    PADDED: "as above, in batches with padding in place of rows without it",
    RAY: "text to stored evidence, one actor, from its first block's commit to its last",
    LOCAL: "the same in one process",
    HARNESS: "text to summed log p (HF backend, loglikelihood_rolling)",
    ONE: "text to log p",
}
BLOCK_RECORDS = 64
START = "<!-- made by tools/benchmark.py -->"
LIBRARIES = ("raymia", "torch", "transformers", "ray")


@dataclass(frozen=True)
class TextBench:
    """What every way is given.

    Attributes
    ----------
    model : the model in this process as raymia loads it.
    network : the same as transformers loads it, which all ways but raymia's use.
    records, neighbors : texts; of the neighbors, raymia stores sums alone.
    ids : the tokens of each record and then of each neighbor, as the model sees them.
    """

    model: CausalLM
    network: Any
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


def make_bench(
    model: str | None, texts: str | None, column: str, batch_tokens: int, neighbors: int
) -> TextBench:
    """Load the model; the shipped base and Austen's passages where none is given."""
    folder = model or str(Path(raymia.__file__).parent / "demo" / ASSETS / "models" / "base")
    given = audit_passages()[:400] if texts is None else texts_among(texts, column)
    usable = list(dict.fromkeys(t for t in given if t.strip()))
    on_gpu = torch.cuda.is_available()
    checkpoint = resolve_causal_lm(ModelSpec(model=folder), "--model", on_gpu=on_gpu)
    loaded = load_causal_lm(checkpoint, batch_tokens=batch_tokens)
    kept = [t for t, ids in zip(usable, loaded.encode(usable), strict=True) if len(ids) > 1]
    made = make_neighbors(kept, neighbors)
    ids = [tokens[: loaded.max_tokens] for tokens in loaded.encode([*kept, *made])]
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=loaded.model.dtype)
    network = network.to(loaded.device).eval()
    return TextBench(loaded, network, checkpoint, kept, made, ids, batch_tokens, on_gpu)


def make_neighbors(records: Sequence[str], count: int) -> list[str]:
    """The neighbors that the audit through Ray makes too."""
    if not count:
        return []
    spec = SubstituteNeighbors(kind="substitute", count=count)
    maker = neighbor_maker(spec, AuditSpec.model_fields["seed"].default, None, PoolSpec())
    items = [Item(record_id(text), i, text) for text in records for i in maker.question.indices()]
    texts: list[str | None] = maker.question.ask(maker.loader.load(), items)["payload"].to_pylist()
    return [text for text in texts if text is not None]


def time_limit(bench: TextBench) -> Timing:
    return time_forward(bench, bench.network)


@torch.inference_mode()
def time_forward(bench: TextBench, network: Any) -> Timing:
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
            network(input_ids=padded, attention_mask=mask, use_cache=False)

    return timed(bench.tokens, run)


def time_adapter(bench: TextBench) -> Timing:
    def run() -> None:
        bench.model.answer(bench.records, moments=True)
        bench.model.answer(bench.neighbors, moments=False)

    return timed(bench.tokens, run)


def time_padded(bench: TextBench) -> Timing:
    packs, bench.model.packs = bench.model.packs, False
    try:
        return time_adapter(bench)
    finally:
        bench.model.packs = packs


@torch.inference_mode()
def time_one_by_one(bench: TextBench) -> Timing:
    def run() -> None:
        for text in bench.texts:
            tokens = bench.model.encode([text])[0][: bench.model.max_tokens]
            ids = torch.tensor([tokens], device=bench.model.device)
            logits = bench.network(input_ids=ids).logits[:, :-1].float()
            logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).cpu()

    return timed(bench.tokens, run)


def time_harness(bench: TextBench) -> Timing:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    longest = max(map(len, bench.ids))
    harness = HFLM(
        pretrained=bench.network,
        tokenizer=bench.model.tokenizer,
        batch_size=max(1, bench.batch_tokens // longest),
    )
    requests = [Instance("loglikelihood_rolling", {}, (t,), n) for n, t in enumerate(bench.texts)]
    return timed(bench.tokens, lambda: harness.loglikelihood_rolling(requests, disable_tqdm=True))


def time_engine(bench: TextBench, engine: EngineKind) -> Timing:
    """The tokens with all that is asked of them, and the neighbors, once each."""
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder, "records.jsonl")
        records.write_text("".join(json.dumps({"text": t}) + "\n" for t in bench.records), "utf-8")
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
            "resources": {"engine": engine, "target": pool, "block_records": BLOCK_RECORDS},
            "store": str(Path(folder, "store")),
        }
        return time_audit(content, tokens_asked)


def neighbors_of(bench: TextBench) -> SubstituteNeighbors:
    """What the audit file says of the neighbors: words replaced, which takes no model's time."""
    count = len(bench.neighbors) // len(bench.records)
    return SubstituteNeighbors(kind="substitute", count=count)


def tokens_asked(answers: pa.Table) -> int:
    """Tokens put to the model; the first of a text has no answer."""
    if "token_count" in answers.column_names:
        return sum(count + 1 for count in answers["token_count"].to_pylist())
    return sum(len(ids) + 1 for ids in answers["token_ids"].to_pylist())


def ways(bench: TextBench) -> dict[str, Callable[[], Timing]]:
    """What there is to compare; lm-evaluation-harness where it is installed."""
    found: dict[str, Callable[[TextBench], Timing]] = {
        LIMIT: time_limit,
        FAST: lambda given: time_forward(given, given.model.model),
        ADAPTER: time_adapter,
        PADDED: time_padded,
        RAY: lambda given: time_engine(given, "ray"),
        LOCAL: lambda given: time_engine(given, "local"),
    }
    if find_spec("lm_eval") is not None:
        found[HARNESS] = time_harness
    found[ONE] = time_one_by_one
    return {name: partial(way, bench) for name, way in found.items()}


def measure(bench: TextBench, rounds: int) -> dict[str, list[Timing]]:
    """Time every way in every round, after one pass in this process that is not counted."""
    time_limit(bench)
    with connected(ResourcesSpec()):
        return run_rounds(ways(bench), rounds, "tokens")


def summary(bench: TextBench, timings: dict[str, list[Timing]], load: float) -> dict[str, Any]:
    """Everything that was measured, with the ratios to the limit, round by round."""
    limit, ray = rates(timings[LIMIT]), rates(timings[RAY])
    return {
        "model": Path(bench.checkpoint.path).name,
        "records": len(bench.records),
        "neighbors": len(bench.neighbors),
        "tokens": bench.tokens,
        "batch_tokens": bench.batch_tokens,
        "rounds": len(limit),
        "machine": machine_facts(load, LIBRARIES),
        "ways": {
            name: {
                "tokens_per_second": [round(rate, 1) for rate in rates(taken)],
                "start_up_seconds": [round(t.start_up, 1) for t in taken],
                "share_of_limit": ratios(rates(taken), limit),
                "ray_is_faster": ratios(ray, rates(taken)),
            }
            for name, taken in timings.items()
        },
        "missing": [] if HARNESS in timings else [f"{HARNESS}: not installed"],
    }


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    lines = [
        f"{found['model']}: {found['records']:,} texts and {found['neighbors']:,} neighbors, "
        f"{found['tokens']:,} tokens, {machine_line(found)}",
        "",
        "| way | asked for | tokens/s | share of the limit | Ray over it |",
        "|---|---|---|---|---|",
    ]
    for name, way in found["ways"].items():
        rate = statistics.median(way["tokens_per_second"])
        cells = [name, ASKED_FOR[name], f"{rate:,.0f}"]
        cells += [spread_cell(s) for s in (way["share_of_limit"], way["ray_is_faster"])]
        lines.append(f"| {' | '.join(cells)} |")
    start_up = statistics.median(found["ways"][RAY]["start_up_seconds"])
    lines += ["", f"Left out of Ray's rate: {start_up:.0f} s until the first block was stored."]
    lines += [f"Not measured: {line}." for line in found["missing"]]
    return "\n".join(lines)
