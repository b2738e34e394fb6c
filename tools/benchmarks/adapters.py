"""Many adapters of one base in one audit, beside an audit of its own for each."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml

import raymia
from benchmarks.measure import machine_facts, machine_line
from raymia.demo.text import ASSETS, audit_passages

START = "<!-- made by tools/benchmark.py --adapters -->"
LIBRARIES = ("raymia", "ray", "torch", "transformers", "peft")
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "surp")
BASE = Path(raymia.__file__).parent / "demo" / ASSETS / "models" / "base"
RANK = 4
SPREAD = 0.05
"""Standard deviation of the adapters' random weights."""
COUNTED = """
import os
from pathlib import Path
from transformers import GPT2LMHeadModel


class Counted(GPT2LMHeadModel):
    def __init__(self, config):
        super().__init__(config)
        with Path(config.loads_file).open("a") as file:
            file.write(f"{os.getpid()}\\n")
"""


@dataclass(frozen=True)
class AdapterBench:
    """What is audited.

    Attributes
    ----------
    folder : holds the base, whose code notes the process that loads it; the adapters; the records;
        and everything that the audits write.
    names : of the adapters' folders.
    """

    folder: Path
    names: list[str]

    @property
    def loads(self) -> Path:
        return self.folder / "loads.txt"

    def write_audit(self, name: str, target: dict[str, Any]) -> Path:
        """An audit of its own output and store."""
        content = {
            "name": name,
            "output": f"{name}/run",
            "store": f"{name}/store",
            "records": {"members": "members.jsonl", "non_members": "non_members.jsonl"},
            "targets": [{"model": "base", "trust_remote_code": True, **target}],
            "attacks": list(ATTACKS),
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return file


def make_bench(adapters: int, records: int, folder: Path) -> AdapterBench:
    """The demo's base with code that counts; adapters of random weights; passages of the demo, half
    of them called members."""
    base = folder / "base"
    shutil.copytree(BASE, base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {
        "auto_map": {"AutoModelForCausalLM": "counted.Counted"},
        "loads_file": str(folder / "loads.txt"),
    }
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "counted.py").write_text(COUNTED, encoding="utf-8")
    names = [f"adapter-{number:03d}" for number in range(adapters)]
    save_adapters(names, folder / "adapters")
    texts = audit_passages()[:records]
    if len(texts) < records:
        raise SystemExit(f"--count: there are {len(texts)} texts, {records} were asked for")
    half = records // 2
    for name, part in (("members", texts[:half]), ("non_members", texts[half:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return AdapterBench(folder, names)


def save_adapters(names: Sequence[str], folder: Path) -> None:
    """LoRA adapters of the demo's base, all weights random."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    settings = {"r": RANK, "lora_alpha": 2 * RANK, "fan_in_fan_out": True}  # of GPT-2's layers
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    draws = torch.Generator().manual_seed(0)
    for name in names:
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if "lora_" in key:
                    weight.normal_(0, SPREAD, generator=draws)
        model.save_pretrained(folder / name)


def measure(bench: AdapterBench, separate: int, load: float) -> dict[str, Any]:
    """Time `raymia audit` on all adapters at once, and on some of them one by one.

    Parameters
    ----------
    separate : how many are audited one by one, spread evenly over all.

    Returns
    -------
    Seconds of each process from its start to its end, how often which process loaded the base, and
    by how much a score of the one differs from the other's.
    """
    bench.loads.unlink(missing_ok=True)
    together = bench.write_audit("together", {"adapters": "adapters/*"})
    seconds = time_audit(together)
    loads = count_loads(bench.loads)
    scores = read_scores(bench.folder / "together")
    print(f"one audit of {len(bench.names)} adapters: {seconds:.1f} s", flush=True)
    alone, loads_alone, largest = [], [], 0.0
    chosen = [bench.names[number * len(bench.names) // separate] for number in range(separate)]
    for name in chosen:
        bench.loads.unlink(missing_ok=True)
        file = bench.write_audit(f"of-{name}", {"name": name, "adapter": f"adapters/{name}"})
        alone.append(time_audit(file))
        loads_alone.append(sum(count_loads(bench.loads).values()))
        own = read_scores(bench.folder / f"of-{name}")
        assert own.keys() == {key for key in scores if key[0] == name}
        largest = max(largest, *(abs(own[key] - scores[key]) for key in own))
        print(f"an audit of {name}: {alone[-1]:.1f} s", flush=True)
    return {
        "adapters": len(bench.names),
        "records": sum(1 for key in scores if key[:2] == (bench.names[0], ATTACKS[0])),
        "scores": len(scores),
        "seconds": round(seconds, 1),
        "loads_by_process": sorted(loads.values()),
        "separate": separate,
        "separate_seconds": [round(s, 1) for s in alone],
        "separate_loads": loads_alone,
        "largest_difference": largest,
        "rounds": 1,
        "machine": machine_facts(load, LIBRARIES),
    }


def time_audit(file: Path) -> float:
    """Run `raymia audit` in a process of its own, as a user does; seconds from start to end."""
    log = file.with_suffix(".log")
    started = time.perf_counter()
    with log.open("wb") as output:
        code = subprocess.run(
            [sys.executable, "-m", "raymia", "audit", str(file)],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        ).returncode  # fmt: skip
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit(f"{file} ended with {code}:\n{log.read_text(encoding='utf-8')}")
    return seconds


def count_loads(file: Path) -> Counter[str]:
    """How often each process has loaded the base."""
    return Counter(file.read_text(encoding="ascii").splitlines())


def read_scores(folder: Path) -> dict[tuple[str, str, str], float]:
    """By target, attack and record."""
    rows = pq.read_table(folder / "run" / "scores.parquet").to_pylist()
    return {(row["target"], row["attack"], row["record_id"]): row["score"] for row in rows}


def page_table(found: dict[str, Any]) -> str:
    """The summary as Markdown."""
    adapters, separate = found["adapters"], found["separate"]
    loads, alone = found["loads_by_process"], found["separate_seconds"]
    mean = statistics.mean(alone)
    all_alone = f"{sum(alone):,.0f}"
    if separate < adapters:
        all_alone = f"{adapters * mean:,.0f}, from {separate} of them"
    slower, least, most = (
        adapters * one / found["seconds"] for one in (mean, min(alone), max(alone))
    )
    each = found["seconds"] / adapters
    times = f"{sum(loads)}, by {'one actor' if len(loads) == 1 else f'{len(loads)} actors'}"
    compared = found["scores"] // adapters * separate
    return "\n".join(
        [
            f"{adapters} LoRA adapters of the demo's base, {found['records']} records, "
            f"{len(ATTACKS)} attacks; {machine_line(found)}",
            "",
            "| way | seconds for all | seconds per adapter | times that the base was loaded |",
            "|---|---|---|---|",
            f"| one audit of all | {found['seconds']:,.0f} | {each:.1f} | {times} |",
            f"| an audit for each | {all_alone} | {mean:.1f} ({min(alone):.1f} to "
            f"{max(alone):.1f}) | {statistics.mean(found['separate_loads']):g} for each |",
            "",
            f"An audit for each takes {slower:.0f} times as long as one of all ({least:.0f} to "
            f"{most:.0f} times by the fastest and the slowest). Of {compared:,} scores that both "
            f"have, none differs by more than {found['largest_difference']:.1e}.",
        ]
    )
