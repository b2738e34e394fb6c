"""Which networks and autoencoders of diffusers are asked, by their configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.util.errors import InputError

CAPTIONED = "UNet2DConditionModel"
NETWORKS = ("UNet2DModel", CAPTIONED, "DiTTransformer2DModel", "Transformer2DModel")
KL, VQ, TINY = "AutoencoderKL", "VQModel", "AutoencoderTiny"

ADDED = {
    "class_embed_type": "a class of each image, and records have none",
    "num_class_embeds": "a class of each image, and records have none",
    "addition_embed_type": "more than a caption, as SDXL's is the size and crop of each image",
    "encoder_hid_dim_type": "another embedding than of a caption",
    "time_cond_proj_dim": "a guidance scale, as a latent consistency model's is",
}
"""Keys of a UNet's config that say that it is told something that raymia has not."""


@dataclass(frozen=True)
class Latent:
    """What an autoencoder's config says of the latents that a network sees.

    Attributes
    ----------
    kind : class of the autoencoder.
    channels : of a latent.
    image_channels : of an image.
    scale : how many times smaller a latent is, in height and in width.
    """

    kind: str
    channels: int
    image_channels: int
    scale: int


def check_autoencoder(config: Mapping[str, Any], file: Path, where: str) -> Latent:
    """Refuse an autoencoder whose latents raymia cannot make as the network was trained on them.

    Raises
    ------
    InputError
        Naming its class, or what its config lacks.
    """
    kind = str(config.get("_class_name"))
    if kind not in (KL, VQ, TINY):
        raise InputError(
            f"{where}: {file} has the class {kind}; raymia encodes with {KL}, {VQ} or {TINY}"
        )
    if config.get("scaling_factor") is None:
        raise InputError(
            f"{where}: {file} has no scaling_factor, the scale of the latents that the model was "
            "trained on; add it"
        )
    if config.get("latents_mean") is not None:
        raise InputError(
            f"{where}: {file} has latents_mean: latents are scaled channel by channel, which "
            "raymia does not"
        )
    own = config.get("vq_embed_dim") if kind == VQ else None
    return Latent(
        kind=kind,
        channels=int(own or config["latent_channels"]),
        image_channels=int(config["in_channels"]),
        scale=2 ** (len(config["block_out_channels"]) - 1),
    )


def check_network(
    config: Mapping[str, Any],
    latent: Latent | None,
    *,
    is_captioned: bool,
    where: str,
    path: Path,
) -> None:
    """Refuse a network that wants more than a noisy image, a timestep and perhaps a caption.

    Raises
    ------
    InputError
        Saying what it wants.
    """
    kind = str(config["_class_name"])
    network = f"{where}: {path}: its network, a {kind},"
    for key, what in ADDED.items():
        if config.get(key) is not None:
            raise InputError(f"{network} is told {what} ({key}: {config[key]})")
    if kind == "Transformer2DModel" and config.get("norm_type") != "ada_norm_zero":
        raise InputError(
            f"{network} is none of a DiT's (norm_type: {config.get('norm_type')}), as PixArt's is"
        )
    if kind == CAPTIONED and not is_captioned:
        raise InputError(
            f"{network} is conditioned on text, and the pipeline has no text_encoder; save the "
            "whole pipeline with save_pretrained(folder)"
        )
    taken, given = (
        int(config["in_channels"]),
        int(config.get("out_channels") or config["in_channels"]),
    )
    seen = taken if latent is None else latent.channels
    if taken != seen:
        made_for = "inpainting" if taken == 2 * seen + 1 else "images with a further image"
        raise InputError(
            f"{network} takes {taken} channels, and the pipeline's latents have {seen}; it is made "
            f"for {made_for}, and raymia asks about an image alone"
        )
    if given not in (taken, 2 * taken):
        raise InputError(
            f"{network} takes {taken} channels and gives {given}; raymia asks for the noise of an "
            "image, with as many channels, or twice as many with a learned variance"
        )
