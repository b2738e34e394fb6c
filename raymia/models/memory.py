"""How much memory a model takes, from the headers of its files; nothing is loaded."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.models.causal.model import HEAD_CHUNK_BYTES
from raymia.models.image_source import ImageCheckpoint
from raymia.models.source import Checkpoint

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.516, "fp4": 0.516}
"""Per weight of a linear layer; of 4 bits with doubly quantized scales, one per 64 weights."""
KEPT_WHOLE = ("embed", "wte", "wpe", "lm_head", "embed_out", "shared", "norm")
"""Parts of names of matrices that bitsandbytes leaves as they are."""
LIVE_WIDTHS = 14
"""Vectors as wide as the model that a layer holds per token: residual, queries, keys, values, the
attention's output, and the inside of the feed-forward, which is about four wide, twice."""
LIVE_MAPS = 12
"""Feature maps of the first width that a convolutional network holds per image."""

GPU_GIB = {
    "T4": 16, "V100": 16, "P100": 16, "A10G": 24, "L4": 24, "L40S": 48, "A100": 40, "A100-40G": 40,
    "A100-80G": 80, "H100": 80, "H200": 141, "B200": 180,
}  # fmt: skip
"""Memory of GPUs by Ray's names of their types."""
USABLE = 0.92
"""Share of a GPU's memory that is left beside CUDA's own."""


@dataclass(frozen=True)
class Memory:
    """An estimate of what an actor holds.

    Attributes
    ----------
    weights, working : bytes; the second for one batch.
    """

    weights: int
    working: int

    @property
    def total(self) -> int:
        return self.weights + self.working

    def fits(self, accelerator_type: str | None, gpus: float) -> bool | None:
        """Whether an actor fits its share of the GPU; None where that is not known."""
        size = GPU_GIB.get(accelerator_type or "")
        if size is None or not gpus:
            return None
        return self.total <= size * 2**30 * USABLE * gpus


def memory_of(checkpoint: Any, batch: int) -> Memory | None:
    """Estimate what a checkpoint takes; None where no file says, as for an endpoint or GGUF.

    Parameters
    ----------
    batch : tokens, or images, per forward pass.
    """
    if isinstance(checkpoint, Checkpoint) and checkpoint.gguf_file is None:
        folders = [Path(checkpoint.path)]
        if checkpoint.adapter is not None:
            folders.append(Path(checkpoint.adapter))
        working = _of_tokens(Path(checkpoint.path), batch, BYTES[checkpoint.dtype])
    elif isinstance(checkpoint, ImageCheckpoint):
        folders = [Path(checkpoint.path)]
        working = _of_images(checkpoint, batch)
    else:
        return None
    kept = BYTES[checkpoint.dtype]
    weights = 0.0
    for folder in folders:
        for name, shape in tensors_in(folder):
            small = QUANTIZED_BYTES.get(checkpoint.quantization)
            is_linear = len(shape) == 2 and not any(part in name for part in KEPT_WHOLE)
            weights += math.prod(shape) * (small if small and is_linear else kept)
    return Memory(round(weights), round(working))


def tensors_in(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes of the tensors in a folder's safetensors files."""
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                yield name, entry["shape"]


def _of_tokens(folder: Path, tokens: int, size: float) -> float:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("hidden_size", "n_embd", "d_model")
    width = next((config[name] for name in names if name in config), 0)
    return tokens * width * LIVE_WIDTHS * size + 2 * HEAD_CHUNK_BYTES


def _of_images(checkpoint: ImageCheckpoint, images: int) -> float:
    """The widest maps are those of the first stage, at the size that the network sees."""
    width = 64
    for file in Path(checkpoint.path).rglob("config.json"):
        config = json.loads(file.read_text(encoding="utf-8"))
        stages = config.get("block_out_channels") or config.get("channels") or [width]
        width = max(width, int(stages[0]))
    height, breadth = checkpoint.latent_shape[-2:]
    if checkpoint.family == "autoencoder":
        height, breadth = checkpoint.shape[-2:]
    return images * width * height * breadth * LIVE_MAPS * BYTES[checkpoint.dtype]
