"""The audits that are broken: each small, in a folder of its own, run by a process of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from forks.programs import Program

import raymia
from raymia.demo.images import digits
from raymia.demo.text import audit_passages, copy_models, write_jsonl
from raymia.evidence.store import EvidenceStore, row_keys
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.spec.file import load_spec
from raymia.storage.moves import TEMPORARY_PREFIX

EACH = 12
"""Members, and as many non-members."""
BLOCK = 2
SHAPE = (1, 8, 8)
NO_SHIFT = {"enabled": False}
"""No score depends on that check, which takes longer than the rest."""
JOB = Path(__file__).parents[2] / "jobs" / "audit.py"

IN_A_FORK = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
IN_A_NEW_PYTHON = "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
Scores = list[tuple[tuple[str, str, str], str]]
"""Target, attack and record of each score, and its bits."""


@dataclass(frozen=True)
class Undisturbed:
    """What an audit comes to that nothing breaks.

    Attributes
    ----------
    seconds, first : that it took, and until the first answers were stored.
    parts : files of evidence when there were most.
    """

    scores: Scores
    seconds: float
    first: float
    parts: int


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
        self.started: list[Program] = []
        self.file = folder / "audit.yaml"
        content = {"name": folder.name, "output": "run", "store": "store", "shift": NO_SHIFT}
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

    def start(self, file: Path | None = None) -> Program:
        """Start the audit, or another of the same folder; with `path` in a Python of its own that
        looks for modules there before others."""
        environment, code = {**os.environ, "RAY_ADDRESS": self.address}, IN_A_FORK
        if self.path is not None:
            found = (str(self.path), os.environ.get("PYTHONPATH"))
            environment["PYTHONPATH"] = os.pathsep.join(place for place in found if place)
            code = IN_A_NEW_PYTHON
        started = Program(code, JOB, file or self.file, environment=environment)
        self.started.append(started)
        return started

    def log(self) -> str:
        """What has been printed by what was started."""
        return "".join(f"{one.stdout}{one.stderr}" for one in self.started)

    def parts(self) -> list[Path]:
        """Files of evidence."""
        found = (self.folder / "store" / "evidence").glob("*/*/*.parquet")
        return sorted(part for part in found if not part.name.startswith(TEMPORARY_PREFIX))

    def scores(self, run: str = "run") -> Scores:
        """All rows of scores, in order."""
        rows = raymia.load_run(self.folder / run).scores().to_pylist()
        return sorted(
            ((row["target"], row["attack"], row["record_id"]), _bits(row["score"])) for row in rows
        )

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


def _bits(score: float | None) -> str:
    return "missing" if score is None else score.hex()


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
