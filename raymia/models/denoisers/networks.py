"""Which networks and autoencoders of diffusers are asked, by their configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.models.denoisers.faces import FACES, FLUX, OF_CLASSES, SDXL, Face, face_of
from raymia.util.errors import InputError
from raymia.util.stated import FLAG, NUMBER, SIDES, TEXT, WHOLE, WHOLES, Kind, stated, stated_if

KL, VQ, TINY, DC = "AutoencoderKL", "VQModel", "AutoencoderTiny", "AutoencoderDC"

ADDED = {
    "class_embed_type": "a class of each image in another way than by its number",
    "num_class_embeds": "a class of each image beside its caption",
    "addition_embed_type": "more than a caption and the image's size",
    "encoder_hid_dim_type": "another embedding than of a caption",
    "time_cond_proj_dim": "a guidance scale, as a latent consistency model's is",
    "guidance_embeds": "a guidance scale, as a distilled model's is",
}
"""Keys of a UNet's config that say that it is conditioned on what raymia has not."""
KNOWN = (
    (SDXL, "addition_embed_type"),
    (OF_CLASSES, "num_class_embeds"),
    (FLUX, "guidance_embeds"),
)
"""Those that a family takes."""
FURTHER = {"controlnet": "a ControlNet", "adapter": "a T2I-Adapter"}
"""Parts of a pipeline that tell its network of a further image."""
SEE_AN_IMAGE = frozenset({"FluxKontextPipeline", "FluxKontextInpaintPipeline"})
"""Pipelines that tell their network of a further image, and whose network is of the same class as
one that is told of none; diffusers' others have further channels, parts or keys of the config."""
SCALE_OF_KL = 0.18215
"""What diffusers takes where the config of an AutoencoderKL has no scaling_factor."""
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        (
            "out_channels",
            "joint_attention_dim",
            "num_class_embeds",
            "num_embeds_ada_norm",
            "pos_embed_max_size",
        ),
        WHOLE,
    ),
    "sample_size": SIDES,
    "timestep_scale": NUMBER,
    "norm_type": TEXT,
    **dict.fromkeys(("guidance_embeds", "use_additional_conditions"), FLAG),
}
"""What is read of a network's config where it is there."""


@dataclass(frozen=True)
class Latent:
    """What an autoencoder's config says of the latents that a network sees.

    Attributes
    ----------
    kind : class of the autoencoder.
    channels : of a latent.
    image_channels : of an image.
    scale : how many times smaller a latent is, in height and in width.
    sample_size : of the images that it was trained on; None where nobody says.
    """

    kind: str
    channels: int
    image_channels: int
    scale: int
    sample_size: int | None


def check_autoencoder(config: Mapping[str, Any], file: Path, where: str) -> Latent:
    """Refuse an autoencoder whose latents raymia cannot make as the network was trained on them.

    Raises
    ------
    InputError
        Naming its class, or what its config lacks.
    """
    kind = str(config.get("_class_name"))
    if kind not in (KL, VQ, TINY, DC):
        raise InputError(
            f"{where}: {file} has the class {kind}; raymia encodes with {KL}, {VQ}, {TINY} or {DC}"
        )
    place = f"{where}: {file}"
    if config.get("scaling_factor") is None:
        usual = f"; diffusers takes {SCALE_OF_KL}, as of Stable Diffusion" if kind == KL else ""
        raise InputError(
            f"{where}: {file} has no scaling_factor, the scale of the latents that the model was "
            f"trained on; add it{usual}"
        )
    if stated(config, "scaling_factor", NUMBER, place) == 0:
        raise InputError(f"{place}: scaling_factor is 0, and no scale of latents")
    stated_if(config, "shift_factor", NUMBER, place)
    own = next((k for k in ("latents_mean", "latents_std") if config.get(k) is not None), None)
    if own is not None:
        raise InputError(
            f"{where}: {file} has {own}: latents are scaled channel by channel, which "
            "raymia does not"
        )
    embedded = stated_if(config, "vq_embed_dim", WHOLE, place) if kind == VQ else None
    outputs = "encoder_block_out_channels" if kind == DC else "block_out_channels"
    return Latent(
        kind=kind,
        channels=embedded or stated(config, "latent_channels", WHOLE, place),
        image_channels=stated(config, "in_channels", WHOLE, place),
        scale=2 ** (len(stated(config, outputs, WHOLES, place)) - 1),
        sample_size=size if WHOLE.holds(size := config.get("sample_size")) else None,
    )


def check_face(config: Mapping[str, Any], index: Mapping[str, Any], path: Path, where: str) -> Face:
    """The family of a pipeline's network.

    Raises
    ------
    InputError
        Naming what it is, for one that nobody here knows how to ask, or that is not asked alone.
    """
    face = face_of(config)
    pipeline = index.get("_class_name") or "a pipeline"
    if face is None:
        known = ", ".join(dict.fromkeys(face.name for face in FACES.values()))
        raise InputError(
            f"{where}: {path} is {pipeline}, whose network is a {config.get('_class_name')}; "
            f"raymia knows how to ask those of {known}"
        )
    if isinstance(pipeline, str) and pipeline in SEE_AN_IMAGE:
        raise InputError(
            f"{where}: {path} is {pipeline}, whose network, a {config.get('_class_name')}, is told "
            "of a further image, and raymia asks about an image alone; audit a model that edits no "
            "images"
        )
    for part, what in FURTHER.items():
        entry = index.get(part)
        if isinstance(entry, list) and any(entry):
            raise InputError(
                f"{where}: {path} is {pipeline}, in which {what} tells the network, a "
                f"{config.get('_class_name')}, of a further image; raymia asks the network alone: "
                "save the pipeline of its base without it"
            )
    return face


def check_kinds(config: Mapping[str, Any], place: str) -> None:
    """Refuse a network's config that has a value of another kind than is read.

    Parameters
    ----------
    place : the file, and what names it.
    """
    stated(config, "in_channels", WHOLE, place)
    for key, kind in KINDS.items():
        stated_if(config, key, kind, place)


def check_network(
    config: Mapping[str, Any],
    latent: Latent | None,
    face: Face,
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
        is_known = (face.name, key) in KNOWN
        if config.get(key) not in (None, False) and not is_known:
            raise InputError(f"{network} is told {what} ({key}: {config[key]})")
    if kind == "Transformer2DModel" and config.get("norm_type") != "ada_norm_zero":
        raise InputError(
            f"{network} is none of a DiT's (norm_type: {config.get('norm_type')}); save the "
            "pipeline again with a newer diffusers, which tells PixArt's apart"
        )
    if face.encoders and not is_captioned:
        raise InputError(
            f"{network} is conditioned on text, and the pipeline has no text_encoder; save the "
            "whole pipeline with save_pretrained(folder)"
        )
    taken: int = config["in_channels"]
    given: int = config.get("out_channels") or taken
    tokens = face.packs**2
    seen = taken // tokens if latent is None else latent.channels
    if taken != seen * tokens:
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
