"""A real audit that runs in seconds: the shipped base and paraphraser, Austen passages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console

import raymia
from raymia.evidence.store import EvidenceStore

ASSETS = Path(raymia.__file__).parent / "demo" / "assets"
BASE = ASSETS / "models" / "base"
PARAPHRASER = ASSETS / "models" / "paraphraser"
NEIGHBORS = 3
WORDS = 16
ALL_ATTACKS = {
    "loss", "lowercase", "zlib", "min_k", "min_k_plus_plus", "surp", "fast_detect",
    "neighbor", "detect_gpt",
    *(f"{statistic}@{reference}" for statistic in ("difference", "ratio", "ez", "wbc", "spv")
      for reference in ("base", "self_prompt")),
}  # fmt: skip


@dataclass(frozen=True)
class Models:
    """Checkpoints made for the tests, all from the shipped base."""

    target: Path
    other: Path
    broken: Path

    @classmethod
    def of(cls, folder: Path) -> Models:
        """Those that are made in a folder."""
        return cls(folder / "target", folder / "other", folder / "broken")


@cache
def passages(words: int | None = WORDS) -> list[str]:
    """The first words of passages that no shipped model has seen, or the whole of them."""
    table = pq.read_table(ASSETS / "text" / "austen.parquet").to_pylist()
    whole = [row["text"] for row in table if row["split"] == "audit"]
    return whole if words is None else [" ".join(text.split()[:words]) for text in whole]


def make_models(folder: Path) -> None:
    """Fine-tune a target on 24 passages; another has other weights; the broken one says NaN."""
    from raymia.prepare.fine_tune import fine_tune
    from raymia.spec import FineTuneSpec

    models = Models.of(folder)
    spec = FineTuneSpec(epochs=6, batch_size=8, learning_rate=2e-3, max_tokens=96)
    texts = passages()
    fine_tune(BASE, texts[:24], spec, models.target, seed=0, progress=lambda *_: None,
              measure_on=texts[24:32])  # fmt: skip
    reweigh(models.target, models.other, lambda tensor: tensor * 0.97)
    reweigh(models.target, models.broken, lambda tensor: tensor * float("nan"))


def reweigh(source: Path, target: Path, change: Any) -> None:
    """Copy a checkpoint, with every floating-point tensor changed."""
    from safetensors.torch import load_file, save_file

    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            (target / file.name).write_bytes(file.read_bytes())
            continue
        tensors = load_file(file)
        changed = {n: change(t) if t.is_floating_point() else t for n, t in tensors.items()}
        save_file(changed, target / file.name, metadata={"format": "pt"})


def write_texts(path: Path, texts: Sequence[str]) -> str:
    """Write a JSONL file of texts and return its name."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path.name


def write_small_audit(
    folder: Path,
    models: Models | None,
    *,
    members: Sequence[str] | None = None,
    non_members: Sequence[str] | None = None,
    self_prompt: bool = False,
    engine: str = "local",
    **overrides: Any,
) -> Path:
    """Write records and an audit file; what is given replaces whole top-level keys, None drops one.

    By default: 12 members and 12 non-members, one target, the base as reference, 3 neighbors; all
    in this process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = passages()
    write_texts(folder / "members.jsonl", texts[:12] if members is None else members)
    write_texts(folder / "non_members.jsonl", texts[24:36] if non_members is None else non_members)
    references: dict[str, Any] = {"base": {"model": str(BASE)}}
    if self_prompt:
        references["self_prompt"] = {
            "kind": "self_prompt",
            "prompts": write_texts(folder / "prompts.jsonl", texts[100:116]),
            "texts": 16,
            "prompt_tokens": 8,
            "max_tokens": 24,
            "fine_tune": {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3},
        }
    content: dict[str, Any] = {
        "name": "small",
        "output": "run",
        "store": "store",
        "records": {"members": "members.jsonl", "non_members": "non_members.jsonl"},
        "targets": [] if models is None else [{"name": "tuned", "model": str(models.target)}],
        "references": references,
        "neighbors": {"model": str(PARAPHRASER), "count": NEIGHBORS},
        "metrics": {"resamples": 100},
        **overrides,
        "resources": {"engine": engine, **overrides.get("resources", {})},
    }
    path = folder / "audit.yaml"
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


def console() -> Console:
    """A console that keeps what is printed (``console.file.getvalue()``)."""
    return Console(file=StringIO(), width=100)


def parts(store: Path, kind: str) -> list[Path]:
    """Committed evidence files of a kind, under all keys."""
    return sorted(
        p for p in store.glob(f"evidence/{kind}/*/*.parquet") if not p.name.startswith(".")
    )


def raw_rows(store: Path, kind: str) -> list[dict[str, Any]]:
    """All rows of a kind as they lie in the files, repetitions included."""
    files = parts(store, kind)
    return pa.concat_tables([pq.read_table(p) for p in files]).to_pylist() if files else []


def evidence(store: Path, kind: str, key: str | None = None) -> dict[tuple[str, int], Any]:
    """Rows of a kind as the store reads them, by record and neighbor; ``key`` picks one of many."""
    from raymia.evidence.store import EvidenceKey

    folders = sorted((store / "evidence" / kind).iterdir())
    chosen = [f for f in folders if key is None or f.name == key]
    assert len(chosen) == 1, f"{kind} has {len(chosen)} keys"
    content = json.loads((chosen[0] / "key.json").read_text())
    table = EvidenceStore(str(store)).read(EvidenceKey(content.pop("kind"), content))
    assert table is not None
    return {(row["record_id"], row["neighbor"]): row for row in table.to_pylist()}


def scores_by_row(folder: Path) -> dict[tuple[str, str, str], float | None]:
    """The scores of a run by target, attack and record; fails where a row is there twice."""
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    scores = {(row["target"], row["attack"], row["record_id"]): row["score"] for row in rows}
    assert len(scores) == len(rows)
    return scores
