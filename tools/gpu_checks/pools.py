"""The same through an audit: three pools that share the GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.audits import time_audit
from benchmarks.texts import tokens_asked

import raymia
from gpu_checks.parts import Found, Part, Setting, rounded
from raymia.demo.text import ASSETS, audit_passages
from raymia.engine.on_ray.cluster import connected
from raymia.spec import ResourcesSpec


def pool_parts() -> list[Part]:
    return [Part("three pools on fractions of the GPU", 2.0, measure)]


def measure(setting: Setting) -> Found:
    """An audit of the demo's base: paraphraser, target and reference, each on a part of the GPU."""
    models = Path(raymia.__file__).parent / "demo" / ASSETS / "models"
    count, block = (6, 2) if setting.is_tiny else (2_000, 256)
    records = setting.folder / "records.jsonl"
    texts = audit_passages()[:count]
    records.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    pool: dict[str, Any] = {"gpus": 0.3 if setting.device.type == "cuda" else 0}
    content = {
        "records": {"candidates": str(records)},
        "targets": [{"name": "target", "model": str(models / "base")}],
        "references": {"base": {"model": str(models / "base"), "dtype": "bfloat16"}},
        "neighbors": {"model": str(models / "paraphraser"), "count": 2},
        "attacks": ["min_k_plus_plus", "neighbor", "ratio"],
        "resources": {
            "target": pool, "reference": pool, "paraphraser": pool, "block_records": block,
            "engine": "ray" if setting.with_ray else "local",
        },
        "store": str(setting.folder / "store"),
    }  # fmt: skip
    if setting.with_ray:
        with connected(ResourcesSpec()):
            timing = time_audit(content, tokens_asked)
    else:
        timing = time_audit(content, tokens_asked)
    return rounded(
        {
            "engine": "ray" if setting.with_ray else "local",
            "tokens/s of the target": timing.rate,
            "seconds until the first block": timing.start_up,
        }
    )
