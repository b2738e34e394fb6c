"""What every model that can be asked has in common, whatever its family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from raymia.models.source import PROVENANCE
from raymia.util.hashing import digest


class AnyCheckpoint(Protocol):
    """A model that was found, before it is loaded: small, and sent to actors.

    Attributes
    ----------
    label : what plans and reports call it.
    fingerprint : hash of all that can change an answer.
    """

    @property
    def label(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


def architecture(checkpoint: Any) -> Any:
    """What says how much a model computes: its config files, quantization and precision."""
    if checkpoint is None or not hasattr(checkpoint, "quantization"):
        return type(checkpoint).__name__
    folders = [Path(checkpoint.path)]
    if getattr(checkpoint, "adapter", None):
        folders.append(Path(checkpoint.adapter))
    wanted = ("config.json", "model_index.json", "adapter_config.json")
    files = sorted(f for folder in folders for f in folder.rglob("*.json") if f.name in wanted)
    configs = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    hashes = [digest({k: v for k, v in c.items() if k not in PROVENANCE}) for c in configs]
    return [hashes, checkpoint.quantization, checkpoint.dtype]
