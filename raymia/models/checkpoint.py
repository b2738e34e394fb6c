"""What every model that can be asked has in common, whatever its family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from raymia.models.source import PROVENANCE
from raymia.util.hashing import digest
from raymia.util.once import Once


class AnyCheckpoint(Protocol):
    """A model that was found, before it is loaded: small, and sent to actors.

    Attributes
    ----------
    label : what plans and reports call it.
    family : of models that answer the same questions, as "causal".
    fingerprint : hash of all that can change an answer.
    """

    @property
    def label(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


def architecture(checkpoint: Any, once: Once | None = None) -> Any:
    """What says how much a model computes: its config files, quantization and precision.

    Parameters
    ----------
    once : of all checkpoints that are looked at together.
    """
    once = once or Once()
    if checkpoint is None or not hasattr(checkpoint, "quantization"):
        return type(checkpoint).__name__
    folders = [Path(checkpoint.path)]
    if getattr(checkpoint, "adapter", None):
        folders.append(Path(checkpoint.adapter))
    files = sorted(file for folder in folders for file in once(_configs, folder))
    hashes = [once(_config_hash, file) for file in files]
    return [hashes, checkpoint.quantization, checkpoint.dtype]


def _configs(folder: Path) -> list[Path]:
    wanted = ("config.json", "model_index.json", "adapter_config.json")
    return [file for file in folder.rglob("*.json") if file.name in wanted]


def _config_hash(file: Path) -> str:
    config = json.loads(file.read_text(encoding="utf-8"))
    return digest({key: value for key, value in config.items() if key not in PROVENANCE})
