"""How much memory an autoencoder takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raymia.models.memory import Memory, bytes_of_maps, bytes_of_weights, first_stage
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.autoencoders.resolver import AutoencoderCheckpoint


def memory(checkpoint: AutoencoderCheckpoint, images: int, once: Once) -> Memory:
    """Estimate what an actor holds.

    Parameters
    ----------
    images : per forward pass.
    """
    weights = bytes_of_weights(checkpoint.folders, checkpoint.dtype, checkpoint.quantization, once)
    height, breadth = checkpoint.shape[-2:]
    width = once(first_stage, Path(checkpoint.path))
    return Memory(weights, bytes_of_maps(images, width, height, breadth, checkpoint.dtype))
