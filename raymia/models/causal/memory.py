"""How much memory a causal language model takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raymia.models.causal.tiles import DEVICE_BYTES, KEPT_BYTES
from raymia.models.memory import (
    BYTES,
    Memory,
    bytes_of_tokens,
    bytes_of_weights,
    own_weights,
    transformer_layers,
    transformer_width,
)
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.causal.resolver import CausalCheckpoint


def memory(checkpoint: CausalCheckpoint, tokens: int, once: Once) -> Memory:
    """Estimate what an actor holds.

    Parameters
    ----------
    tokens : per forward pass.
    """
    folders, numbers = checkpoint.folders, 0
    if checkpoint.gguf_file is None:
        width = once(transformer_width, Path(checkpoint.path))
    else:  # transformers unpacks it as it is loaded
        file, folders = folders[0] / checkpoint.gguf_file, folders[1:]
        width, numbers = once(_in_gguf, file)
    weights = bytes_of_weights(
        own_weights(folders), checkpoint.dtype, checkpoint.quantization, once
    )
    weights += round(numbers * BYTES[checkpoint.dtype])
    working = bytes_of_tokens(tokens, width, checkpoint.dtype)
    layers = once(transformer_layers, Path(checkpoint.path)) if not numbers else 0
    kept = round(2 * layers * width * tokens * BYTES[checkpoint.dtype])
    return Memory(weights, working + DEVICE_BYTES + 2 * min(KEPT_BYTES, kept))


def _in_gguf(file: Path) -> tuple[int, int]:
    """Width of the model in a GGUF file, and how many numbers its tensors have."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    widths = (f for name, f in reader.fields.items() if name.endswith(".embedding_length"))
    width = next((int(field.parts[field.data[0]][0]) for field in widths), 0)
    return width, sum(int(tensor.n_elements) for tensor in reader.tensors)
