"""How much memory a model takes that predicts pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raymia.models.memory import Memory, bytes_of_tokens, bytes_of_weights, transformer_width
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.pixels.resolver import PixelCheckpoint


def memory(checkpoint: PixelCheckpoint, images: int, once: Once) -> Memory:
    """Estimate what an actor holds.

    Parameters
    ----------
    images : per forward pass; each pixel is a token.
    """
    weights = bytes_of_weights(checkpoint.folders, checkpoint.dtype, checkpoint.quantization, once)
    _, height, breadth = checkpoint.shape
    tokens = images * height * breadth
    width = once(transformer_width, Path(checkpoint.path))
    working = bytes_of_tokens(tokens, width, checkpoint.dtype)
    return Memory(weights, working)
