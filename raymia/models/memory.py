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
from raymia.util.once import Once

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


def memory_of(checkpoint: Any, batch: int, once: Once | None = None) -> Memory | None:
    """Estimate what a checkpoint takes; None where no file says, as for an endpoint or GGUF.

    Parameters
    ----------
    batch : tokens, or images, per forward pass.
    once : of all checkpoints that are looked at together.
    """
    once = once or Once()
    if isinstance(checkpoint, Checkpoint) and checkpoint.gguf_file is None:
        folders = [Path(checkpoint.path)]
        if checkpoint.adapter is not None:
            folders.append(Path(checkpoint.adapter))
        width = once(_width, Path(checkpoint.path))
        working = batch * width * LIVE_WIDTHS * BYTES[checkpoint.dtype] + 2 * HEAD_CHUNK_BYTES
    elif isinstance(checkpoint, ImageCheckpoint):
        folders = [Path(checkpoint.path)]
        working = once(_of_images, checkpoint, batch)
    else:
        return None
    held = (checkpoint.dtype, checkpoint.quantization)
    weights = sum(once(_weights_in, folder, *held) for folder in folders)
    return Memory(round(weights), round(working))


def _weights_in(folder: Path, dtype: str, quantization: str) -> float:
    """Bytes of a folder's weights as they are held."""
    kept, small = BYTES[dtype], QUANTIZED_BYTES.get(quantization)
    weights = 0.0
    for name, shape in tensors_in(folder):
        is_linear = len(shape) == 2 and not any(part in name for part in KEPT_WHOLE)
        weights += math.prod(shape) * (small if small and is_linear else kept)
    return weights


def tensors_in(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes of the tensors in a folder's safetensors files."""
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as opened:
            (size,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(size))
        for name, entry in header.items():
            if name != "__metadata__":
                yield name, entry["shape"]


def _width(folder: Path) -> int:
    """Of the vectors that a language model passes from layer to layer; 0 where it is not known."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = ("hidden_size", "n_embd", "d_model")
    return int(next((config[name] for name in names if name in config), 0))


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
