"""How much memory a diffusion model takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raymia.models.memory import (
    Memory,
    bytes_of_maps,
    bytes_of_tokens,
    bytes_of_weights,
    first_stage,
)
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.denoisers.resolver import DenoiserCheckpoint


def memory(checkpoint: DenoiserCheckpoint, images: int, once: Once) -> Memory:
    """Estimate what an actor holds.

    Parameters
    ----------
    images : per forward pass.
    """
    parts = (checkpoint.network, checkpoint.autoencoder, *checkpoint.text_encoders)
    places = {
        Path(part.file or Path(checkpoint.path) / part.folder) for part in parts if part is not None
    }
    weights = bytes_of_weights(sorted(places), checkpoint.dtype, checkpoint.quantization, once)
    height, breadth = checkpoint.latent_shape[-2:]
    config = checkpoint.query.config
    if "block_out_channels" not in config and config.get("num_attention_heads"):
        side = int(config.get("patch_size") or 1) * checkpoint.face.packs
        tokens = images * (height // side) * (breadth // side)
        heads, of_each = config["num_attention_heads"], config.get("attention_head_dim")
        inner = int(heads) * int(of_each) if of_each else int(config["hidden_size"])
        return Memory(weights, bytes_of_tokens(tokens, inner, checkpoint.dtype))
    width = once(first_stage, Path(checkpoint.path))
    return Memory(weights, bytes_of_maps(images, width, height, breadth, checkpoint.dtype))
