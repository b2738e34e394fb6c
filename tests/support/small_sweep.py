"""Sweeps over made-up evidence in a real store: no model is loaded, only fingerprinted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from benchmarks.sweeps import store_made_evidence
from small_audit import BASE, reweigh, write_texts

from raymia.evidence.store import EvidenceStore
from raymia.spec import AuditSpec
from raymia.spec.file import load_spec
from raymia.sweep.plan import SweepPlan, plan_sweep
from raymia.sweep.space import check_sweep

SWEEP: dict[str, Any] = {
    "attacks": {"min_k": {"share": {"grid": [0.1, 0.3, 0.9]}}, "spv": {"space": {
        "choice": ["log", "probability"]}}},
    "queries": {"neighbors.count": {"grid": [1, 4, 2]}},
}  # fmt: skip


def write_sweep_audit(
    folder: Path,
    sweep: dict[str, Any] | None,
    records: int = 80,
    engine: str = "local",
    **changes: Any,
) -> Path:
    """An audit file: half the records are members; a base and another model as references, and
    neighbors that need no model. What is given replaces top-level keys. By default all is done in
    this process."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: Sequence[str] = [f"text {n} of a made-up audit" for n in range(records)]
    if not (folder / "target").exists():
        reweigh(BASE, folder / "target", lambda tensor: tensor * 0.97)
        reweigh(BASE, folder / "other", lambda tensor: tensor * 0.98)
    content = {
        "name": "made-up",
        "output": "run",
        "store": "store",
        "records": {
            "members": write_texts(folder / "members.jsonl", texts[: records // 2]),
            "non_members": write_texts(folder / "non_members.jsonl", texts[records // 2 :]),
        },
        "targets": [{"name": "tuned", "model": "./target"}],
        "references": {"base": {"model": str(BASE)}, "other": {"model": "./other"}},
        "neighbors": {"kind": "substitute", "count": 3},
        "metrics": {"resamples": 100},
        "sweep": sweep,
        **changes,
        "resources": {"engine": engine, **changes.get("resources", {})},
    }
    path = folder / "audit.yaml"
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


def made_spec(folder: Path, sweep: dict[str, Any] | None, **changes: Any) -> AuditSpec:
    return load_spec(write_sweep_audit(folder, sweep, **changes))


def with_evidence(spec: AuditSpec) -> SweepPlan:
    """Store answers to everything that a sweep would ask."""
    store = EvidenceStore(spec.store)
    plan = plan_sweep(check_sweep(spec), store)
    for audit in plan.audits:
        store_made_evidence(audit.inputs, store)
    return plan_sweep(check_sweep(spec), store)
