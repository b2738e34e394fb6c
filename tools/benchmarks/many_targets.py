"""How long `raymia plan` takes, and what memory, for an audit of many targets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

import raymia
from benchmarks.measure import machine_facts
from raymia.demo.text import ASSETS, audit_passages

START = "<!-- made by tools/benchmark.py --plan-targets -->"
LIBRARIES = ("raymia", "torch", "transformers", "pyarrow")
MODELS = Path(raymia.__file__).parent / "demo" / ASSETS / "models"
RECORDS = 100
RANK = 1
ADAPTERS, NAMES = "LoRA adapters of one base", "names of one folder"


def make_audits(targets: int, folder: Path) -> dict[str, Path]:
    """An audit of LoRA adapters of the demo's base, each of its own weights, and one of the base
    under as many names; both with a reference and neighbors, so that all but a few attacks run."""
    base = folder / "base"
    shutil.copytree(MODELS / "base", base)
    texts = audit_passages()[:RECORDS]
    half = RECORDS // 2
    for name, part in (("members", texts[:half]), ("non_members", texts[half:])):
        _write_rows(folder / f"{name}.jsonl", ({"text": text} for text in part))
    save_adapters(targets, base, folder / "adapters")
    rows = ({"name": f"run-{n:04d}", "path": "base"} for n in range(targets))
    _write_rows(folder / "names.jsonl", rows)
    written = {
        ADAPTERS: {"model": "base", "adapters": "adapters/*"},
        NAMES: {"manifest": "names.jsonl"},
    }
    return {way: _write_audit(folder, target) for way, target in written.items()}


def save_adapters(count: int, base: Path, folder: Path) -> None:
    """LoRA adapters of the first layer's attention."""
    width = json.loads((base / "config.json").read_text(encoding="utf-8"))["n_embd"]
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK,
        "target_modules": ["c_attn"], "layers_to_transform": [0], "fan_in_fan_out": True,
    }  # fmt: skip
    draws = np.random.default_rng(0)
    layer = "base_model.model.transformer.h.0.attn.c_attn"
    for number in range(count):
        adapter = folder / f"adapter-{number:04d}"
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        weights = {
            f"{layer}.lora_A.weight": draws.normal(size=(RANK, width)).astype(np.float32),
            f"{layer}.lora_B.weight": draws.normal(size=(3 * width, RANK)).astype(np.float32),
        }
        save_file(weights, adapter / "adapter_model.safetensors")


def _write_rows(file: Path, rows: Iterable[Mapping[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_audit(folder: Path, target: Mapping[str, str]) -> Path:
    (key,) = target.keys() - {"model"}
    content = {
        "name": key,
        "output": f"{key}/run",
        "store": f"{key}/store",
        "records": {"members": "members.jsonl", "non_members": "non_members.jsonl"},
        "targets": [dict(target)],
        "references": {"base": {"model": "base"}},
        "neighbors": {"model": str(MODELS / "paraphraser"), "count": 5},
    }
    file = folder / f"{key}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


def measure(audits: Mapping[str, Path], targets: int, load: float) -> dict[str, Any]:
    """Run `raymia plan` on each audit, in a process of its own, as a user does.

    Returns
    -------
    Of each, the seconds from start to end, those of the processors, and the most memory it held.
    """
    found = {way: measure_one(file) for way, file in audits.items()}
    return {"targets": targets, "ways": found, "machine": machine_facts(load, LIBRARIES)}


def measure_one(file: Path) -> dict[str, float]:
    """Seconds, processor seconds and MiB of one plan."""
    log = file.with_suffix(".log")
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "raymia", "plan", str(file)],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=file.parent,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{file} ended with {process.returncode}:\n{log.read_text('utf-8')}")
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 2),
        "mebibytes": round(used.ru_maxrss / 1024),
    }


def page_table(found: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return "\n".join(
        [
            f"| {found['targets']:,} targets | seconds | of processors | memory at most |",
            "|---|---|---|---|",
            *(
                f"| {way} | {one['seconds']:.1f} | {one['processor_seconds']:.1f} | "
                f"{one['mebibytes']:,} MiB |"
                for way, one in found["ways"].items()
            ),
            "",
            f"{machine['cores']} cores, load before the run {machine['load_before']:.1f}; "
            f"{versions}.",
        ]
    )
