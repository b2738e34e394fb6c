"""The text demo: a real audit on an embedded default, with no network, no GPU and no account.

The base was pre-trained on one source (the King James Bible). Members, non-members and prompts are
passages of another (Jane Austen's novels), split at random; whatever depends on members happens
here, live: fine-tuning the target, self-prompting, fine-tuning the reference, scoring.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from raymia.demo.folder import Section, run_in, write_audit_file
from raymia.engine.base import Executor
from raymia.engine.board import reporter
from raymia.models.causal.training import Training
from raymia.prepare.fine_tune import fine_tune
from raymia.results.result import RunResult
from raymia.spec import EngineKind, FineTuneSpec, PoolSpec
from raymia.util.draws import dealt

ASSETS = "assets"


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo; the defaults take under four minutes on two cores."""

    members: int = 400
    prompts: int = 1_600
    target: FineTuneSpec = field(default_factory=lambda: FineTuneSpec(epochs=3, learning_rate=1e-3))
    texts: int = 1_600
    reference: FineTuneSpec = field(
        default_factory=lambda: FineTuneSpec(epochs=2, learning_rate=5e-4)
    )
    seed: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Records of each file."""
        return {
            "members": self.members,
            "non_members": self.members,
            "prompts": self.prompts,
        }


def run_demo(
    folder: Path, console: Console, settings: DemoSettings, kind: EngineKind | None = None
) -> tuple[RunResult, str]:
    """Fine-tune a target, write the audit file, and run the audit; see :func:`run_in`."""
    return run_in(folder, console, lambda executor: make_demo(folder, settings, executor), kind)


def make_demo(folder: Path, settings: DemoSettings, executor: Executor) -> None:
    """Write records, prompts and models into a folder, fine-tune the target, write the audit
    file."""

    parts = dealt(audit_passages(), settings.sizes, settings.seed, "demo")
    for name, texts in parts.items():
        write_jsonl(folder / f"{name}.jsonl", texts)
    copy_models(folder)
    tune_target(
        folder, parts["members"], parts["non_members"], settings.target, settings.seed, executor
    )
    write_audit_file(folder, sections_of_audit(settings))


def tune_target(
    folder: Path,
    members: Sequence[str],
    held_out: Sequence[str],
    spec: FineTuneSpec,
    seed: int,
    executor: Executor,
    training: Training | None = None,
) -> None:
    """Fine-tune the base of a demo's folder on its members, and save it as the target."""
    base, target = (folder.resolve() / name for name in ("base", "target"))
    with executor.reporting() as board:
        report = reporter(board, "fine-tune: target")

        def train() -> None:
            fine_tune(base, members, spec, target, seed=seed, progress=report,
                      measure_on=held_out, training=training)  # fmt: skip

        executor.call([train], PoolSpec())


def audit_passages() -> list[str]:
    """The passages that no shipped model has seen."""
    asset = resources.files("raymia.demo").joinpath(ASSETS, "text", "austen.parquet")
    with resources.as_file(asset) as path:
        table = pq.read_table(path).to_pylist()
    return [row["text"] for row in table if row["split"] == "audit"]


def copy_models(folder: Path) -> None:
    """Copy the models that ship with the package, but are no targets."""
    for model in ("base", "paraphraser"):
        copy_asset(f"models/{model}", folder / model)


def copy_asset(name: str, target: Path) -> None:
    """Copy a folder that ships with the package."""
    with resources.as_file(resources.files("raymia.demo").joinpath(ASSETS, name)) as source:
        shutil.copytree(source, target, dirs_exist_ok=True)


def write_jsonl(path: Path, texts: Sequence[str]) -> None:
    """Write texts as one JSON object per line."""
    write_rows(path, ({"text": text} for text in texts))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def sections_of_audit(settings: DemoSettings) -> list[Section]:
    """The audit that the demo runs."""
    fine_tuning = settings.reference.model_dump(exclude_defaults=True)
    return [
        ("One audit. Relative paths are relative to this file's folder.",
         {"name": "demo", "output": "report", "store": "store", "seed": settings.seed}),
        ("Texts of the most exposed records are shown: those of the demo are nobody's secret.",
         {"report": {"texts": True}}),
        ("Known members and held-out non-members: JSONL, CSV or Parquet, local or any fsspec URL.",
         {"records": {"members": "members.jsonl", "non_members": "non_members.jsonl"}}),
        ("The checkpoints under audit: local folders or hub names, with `adapter` and\n"
         "`quantization: nf4` or `int8` where wanted.",
         {"targets": [{"name": "target", "model": "target"}]}),
        ("References: the base, and the base fine-tuned on what the target itself writes.",
         {"references": {
             "base": {"model": "base"},
             "self_prompt": {
                 "kind": "self_prompt", "prompts": "prompts.jsonl", "texts": settings.texts,
                 "prompt_tokens": 8, "max_tokens": 72, "generation_batch": 128,
                 "fine_tune": fine_tuning}}}),
        ("Neighbors of each record, for attacks that compare a record with its neighbors.",
         {"neighbors": {"preset": "repo", "model": "paraphraser"}}),
        ("Actors, CPUs and GPUs of each pool.",
         {"resources": {name: {"actors": 1} for name in ("paraphraser", "target", "reference")}}),
    ]  # fmt: skip
