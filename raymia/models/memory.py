"""How much memory a model takes, from the headers of its files; nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raymia.models.source import read_json
from raymia.storage.safetensors import read_header
from raymia.util.once import Once

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
PACKED_BYTES = {"I8": 1.0, "U8": 1.0, "I16": 2.0, "I32": 4.0}
"""Of numbers that are kept as they were saved, by safetensors' names of their types."""
QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.516, "fp4": 0.516}
"""Per weight of a linear layer; of 4 bits with doubly quantized scales, one per 64 weights."""
KEPT_WHOLE = ("embed", "wte", "wpe", "lm_head", "embed_out", "shared", "norm")
"""Parts of names of matrices that bitsandbytes leaves as they are."""
LIVE_WIDTHS = 14
"""Vectors as wide as the model that a layer of a transformer holds per token: residual, queries,
keys, values, the attention's output, and the inside of the feed-forward, which is about four wide,
twice."""
WIDTHS = ("hidden_size", "n_embd", "d_model")
"""What configs of transformers call their width."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What they call the number of their layers."""
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


def bytes_of_weights(folders: Iterable[Path], dtype: str, quantization: str, once: Once) -> int:
    """Bytes that the tensors of folders, or of files, take once they are loaded."""
    return round(sum(once(_weights_in, folder, dtype, quantization) for folder in folders))


def _weights_in(folder: Path, dtype: str, quantization: str) -> float:
    kept, small = BYTES[dtype], QUANTIZED_BYTES.get(quantization)
    total = 0.0
    for file in [folder] if folder.is_file() else sorted(folder.rglob("*.safetensors")):
        for name, tensor in read_header(file, str(file)).items():
            is_linear = len(tensor.shape) == 2 and not any(part in name for part in KEPT_WHOLE)
            loaded = small if small and is_linear else PACKED_BYTES.get(tensor.dtype, kept)
            total += math.prod(tensor.shape) * loaded
    return total


def own_weights(folders: Iterable[Path]) -> list[Path]:
    """The files of weights in folders, without those of their subfolders, as of a training's
    checkpoints."""
    return [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]


def bytes_of_maps(images: int, width: int, height: int, breadth: int, dtype: str) -> int:
    """Bytes of the feature maps of a convolutional network, whose widest are its first stage's.

    Parameters
    ----------
    images : per forward pass.
    width : channels of the first stage.
    height, breadth : of what the network sees.
    """
    return round(images * width * height * breadth * LIVE_MAPS * BYTES[dtype])


def first_stage(folder: Path) -> int:
    """Channels of the first stage of the widest convolutional network in a folder, by its configs;
    64 at least."""
    width = 64
    for file in folder.rglob("config.json"):
        config = read_json(file)
        stages = config.get("block_out_channels") or config.get("channels") or [width]
        width = max(width, int(stages[0]))
    return width


def transformer_width(folder: Path) -> int:
    """Of the vectors that a transformer passes from layer to layer; 0 where it is not known."""
    return _number_of(folder, WIDTHS)


def transformer_layers(folder: Path) -> int:
    """Of a transformer; 0 where it is not known."""
    return _number_of(folder, LAYERS)


def _number_of(folder: Path, names: Sequence[str]) -> int:
    config = read_json(folder / "config.json")
    return int(next((config[name] for name in names if name in config), 0))


def bytes_of_tokens(tokens: int, width: int, dtype: str) -> int:
    """Bytes that a layer of a transformer holds.

    Parameters
    ----------
    tokens : per forward pass.
    """
    return round(tokens * width * LIVE_WIDTHS * BYTES[dtype])
