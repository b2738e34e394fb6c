"""A small training: a tiny model, two dozen passages, two steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml
from tiny_models import passages, save_tiny

from raymia.modalities.texts import run_training as run_train
from raymia.run.train import run_training
from raymia.spec.training_file import load_training

WIDTHS = {"gpt2": "n_embd", "gptj": "n_embd", "falcon": "hidden_size", "llama": "hidden_size"}
SMALL = {
    "prefix": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "lora": {"r": 2},
}


@cache
def tiny(kind: str, width: int = 32) -> Path:
    """Folder of a tiny model of an architecture; made once, read only."""
    return save_tiny(Path(mkdtemp()) / kind, kind, **{WIDTHS[kind]: width})


def rows_of(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


def write_training(
    folder: Path,
    base: Path,
    method: str | dict[str, Any] = "lora",
    *,
    rows: Sequence[dict[str, Any]] | None = None,
    trainer: dict[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """Write records and a training file; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) + "\n" for row in rows or rows_of(passages(24)))
    (folder / "records.jsonl").write_text("".join(lines), encoding="utf-8")
    kind = method if isinstance(method, str) else method["kind"]
    own = method if isinstance(method, dict) else {"kind": kind, **SMALL.get(kind, {})}
    options = {"learning_rate": 0.01, "max_steps": 2, "per_device_train_batch_size": 4}
    content = {
        "output": "out",
        "base": str(base),
        "records": {"files": "records.jsonl"},
        "training": {"max_length": 24},
        "method": own,
        "trainer": {**options, **(trainer or {})},
        **sections,
    }
    file = folder / "training.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def train(file: Path) -> dict[str, Any]:
    return run_training(load_training(file))


def weights(folder):
    """What is in the files of weights below a folder."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*.safetensors"))
    }


@contextmanager
def stopping_after(step, monkeypatch):
    """Have a training end at a step as a kill would, with what it had written by then."""

    @contextmanager
    def bar(*_):
        def progress(done, _total):
            if done == step:
                raise KeyboardInterrupt

        yield progress

    with monkeypatch.context() as patch:
        patch.setattr(run_train, "progress_bar", bar)
        with pytest.raises(KeyboardInterrupt):
            yield


def facts_of(manifest):
    """What of a manifest is the same whenever the training was stopped."""
    return [manifest["checkpoints"], manifest["files"], manifest["steps"]]
