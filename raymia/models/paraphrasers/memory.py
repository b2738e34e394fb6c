"""How much memory a model takes that makes neighbors of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raymia.models.causal.tiles import DEVICE_BYTES
from raymia.models.memory import (
    Memory,
    bytes_of_tokens,
    bytes_of_weights,
    own_weights,
    transformer_width,
)
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.paraphrasers.resolver import Paraphraser


def memory(checkpoint: Paraphraser, tokens: int, once: Once) -> Memory:
    """Estimate what an actor holds.

    Parameters
    ----------
    tokens : per forward pass.
    """
    weights = bytes_of_weights(
        own_weights(checkpoint.folders), checkpoint.dtype, checkpoint.quantization, once
    )
    width = once(transformer_width, Path(checkpoint.path))
    working = bytes_of_tokens(tokens, width, checkpoint.dtype)
    return Memory(weights, working + DEVICE_BYTES)
