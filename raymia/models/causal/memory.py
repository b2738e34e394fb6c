"""How much memory a causal language model takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raymia.models.memory import Memory, bytes_of_tokens, bytes_of_weights, transformer_width
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.causal.resolver import CausalCheckpoint

HEAD_CHUNK_BYTES = 16 * 2**20
"""Float32 logits held at once; a [batch, length, vocabulary] tensor never exists."""


def memory(checkpoint: CausalCheckpoint, tokens: int, once: Once) -> Memory | None:
    """Estimate what an actor holds; None of a GGUF file, whose headers are not read.

    Parameters
    ----------
    tokens : per forward pass.
    """
    if checkpoint.gguf_file is not None:
        return None
    weights = bytes_of_weights(checkpoint.folders, checkpoint.dtype, checkpoint.quantization, once)
    width = once(transformer_width, Path(checkpoint.path))
    working = bytes_of_tokens(tokens, width, checkpoint.dtype)
    return Memory(weights, working + 2 * HEAD_CHUNK_BYTES)
