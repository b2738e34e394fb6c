"""The audits that are broken: each small, in a folder of its own, run by a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

import raymia
from raymia.demo.images import digits
from raymia.demo.text import audit_passages, copy_models, write_jsonl
from raymia.evidence.store import EvidenceStore, row_keys
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.spec.file import load_spec

EACH = 24
"""Members, and as many non-members."""
BLOCK = 2
SHAPE = (1, 8, 8)
JOB = Path(__file__).parents[2] / "jobs" / "audit.py"

Scores = dict[tuple[str, str, str], str]


class Audit:
    """One audit.

    Parameters
    ----------
    folder : of its own; what is there is removed.
    address : of the cluster that it joins.
    variant : one of :data:`VARIANTS`.
    changes : top-level keys of the audit file.
    """

    def __init__(self, folder: Path, address: str, variant: str, **changes: Any) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.address = folder, address
        self.path: Path | None = None
        self.file = folder / "audit.yaml"
        content = {"name": folder.name, "output": "run", "store": "store"}
        self.write({**content, **VARIANTS[variant](folder), **changes})

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        return content

    def write(self, content: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(content), encoding="utf-8")

    @property
    def store(self) -> EvidenceStore:
        return EvidenceStore(load_spec(self.file).store)

    def start(self, file: Path | None = None) -> subprocess.Popen[bytes]:
        """Start the audit, or another of the same folder, with `path` before others where Python
        looks for modules; its output is added to the log."""
        env = {**os.environ, "RAY_ADDRESS": self.address}
        if self.path is not None:
            found = (str(self.path), os.environ.get("PYTHONPATH"))
            env["PYTHONPATH"] = os.pathsep.join(place for place in found if place)
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(JOB), str(file or self.file)],
                env=env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def scores(self, run: str = "run") -> Scores:
        """Scores as they are in binary, by target, attack and record."""
        rows = raymia.load_run(self.folder / run).scores().to_pylist()
        found = {
            (row["target"], row["attack"], row["record_id"]): float.hex(row["score"])
            for row in rows
        }
        if len(found) < len(rows):
            raise AssertionError(f"{len(rows) - len(found)} rows of scores are there twice")
        return found

    def missing(self) -> int | None:
        """What the planner finds that no file answers; None while a reference is not made, since
        what will be asked of it is not known."""
        plan = plan_audit(resolve_inputs(load_spec(self.file)), self.store)
        if any(not made.ready for target in plan for made in target.preparations):
            return None
        return sum(target.to_ask for target in plan)

    def asked(self) -> int:
        return sum(s.asked for s in raymia.load_run(self.folder / "run").result.stages)

    def rows_twice(self) -> int:
        """Answers that lie in more than one file."""
        store, twice = self.store, 0
        for plan in plan_audit(resolve_inputs(load_spec(self.file)), store):
            for key in (p.key for stage in plan.stages for p in stage.questions):
                names = store.folder.names(key.folder, ".parquet")
                parts = [store.read_part(f"{key.folder}/{name}") for name in names]
                keys = [pair for part in parts for pair in row_keys(part)]
                twice += len(keys) - len(set(keys))
        return twice


def _texts(folder: Path) -> dict[str, Any]:
    texts = audit_passages()
    copy_models(folder)
    write_jsonl(folder / "members.jsonl", texts[:EACH])
    write_jsonl(folder / "non_members.jsonl", texts[EACH : 2 * EACH])
    return {
        "records": {"members": "members.jsonl", "non_members": "non_members.jsonl"},
        "targets": [{"name": "target", "model": "base"}],
        "neighbors": {"model": "paraphraser", "count": 2},
        "attacks": ["loss", "min_k", "neighbor"],
        "resources": {
            "block_records": BLOCK, "target": {"actors": 2, "cpus": 0.5},
            "paraphraser": {"cpus": 0.5},
        },
    }  # fmt: skip


def _self_prompt(folder: Path) -> dict[str, Any]:
    """The target writes texts, and its base is tuned on them for some seconds."""
    content = _texts(folder)
    write_jsonl(folder / "prompts.jsonl", audit_passages()[100:140])
    del content["neighbors"], content["resources"]["paraphraser"]
    tuning = {"epochs": 12, "batch_size": 4, "max_tokens": 64}
    reference = {
        "kind": "self_prompt", "prompts": "prompts.jsonl", "texts": 40, "max_tokens": 64,
        "fine_tune": tuning,
    }  # fmt: skip
    references = {"base": {"model": "base"}, "self_prompt": reference}
    return {**content, "references": references, "attacks": ["loss", "difference"]}


def _self_generated(folder: Path) -> dict[str, Any]:
    """The target generates images, and a fresh network is trained on them for some seconds."""
    from PIL import Image

    fresh_pipeline(folder / "model", SHAPE, channels=(16, 32), attention=False)
    images = digits()
    for number, name in enumerate(("members", "non_members")):
        (folder / name).mkdir()
        for index, image in enumerate(images[number * EACH : (number + 1) * EACH]):
            Image.fromarray(image[0]).save(folder / name / f"{index:03}.png")
    training = {"steps": 1500, "batch_size": 8, "warmup": 5}
    reference = {
        "kind": "self_generated", "images": 32, "sampling_steps": 4, "generation_batch": 16,
        "training": training,
    }  # fmt: skip
    return {
        "records": {"kind": "image", "members": "members", "non_members": "non_members"},
        "targets": [{"name": "target", "model": "model"}],
        "references": {"self_generated": reference},
        "probes": {"denoising": {"timesteps": [50, 150, 300], "draws": 1}},
        "attacks": ["loss"],
        "resources": {"block_records": 16},
    }


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "texts": _texts,
    "self_prompt": _self_prompt,
    "self_generated": _self_generated,
}


def other_file(audit: Audit, **changes: Any) -> Path:
    """A second audit file beside an audit's own."""
    file = audit.folder / "second.yaml"
    file.write_text(yaml.safe_dump({**audit.content, **changes}), encoding="utf-8")
    return file


def raymia_command(*arguments: str | Path) -> Sequence[str]:
    return [sys.executable, "-m", "raymia", *map(str, arguments)]
