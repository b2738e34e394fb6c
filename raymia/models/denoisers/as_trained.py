"""A diffusion model asked as it was trained: with one caption for all, at another size."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from raymia.models.denoisers.query import GUIDANCE, Told
from raymia.models.denoisers.schedules import FLOW
from raymia.models.image_source import CONFIG, SCHEDULER
from raymia.models.original_layout import VELOCITY, ZERO_TERMINAL_SNR, marks_in
from raymia.models.source import read_json
from raymia.util.errors import InputError

if TYPE_CHECKING:
    from raymia.models.denoisers.resolver import DenoiserCheckpoint

Checkpoint = TypeVar("Checkpoint", bound="DenoiserCheckpoint")


def as_trained(
    checkpoint: Checkpoint,
    prompt: str | None,
    size: tuple[int, int],
    told: Told | None = None,
) -> Checkpoint:
    """The same model with its fingerprint; as it is where nothing changes.

    Parameters
    ----------
    prompt : that all images are asked about with; None for each its own caption.
    size : height and width of the images.
    told : what else was otherwise than its pipeline says; None is nothing.
    """
    told, query = _unusual(told or Told(), checkpoint), checkpoint.query
    if (prompt, size, told) == (query.prompt, query.size, query.told):
        return checkpoint
    (channels, height, _), (image_channels, *_) = checkpoint.latent_shape, checkpoint.shape
    scale = checkpoint.shape[1] // height
    resized = query.is_resized or size != query.size
    return replace(
        checkpoint,
        shape=(image_channels, *size),
        latent_shape=(channels, size[0] // scale, size[1] // scale),
        query=replace(query, prompt=prompt, size=size, is_resized=resized, told=told),
    ).with_fingerprint()


def _unusual(told: Told, checkpoint: DenoiserCheckpoint) -> Told:
    """The same without what the model's pipeline does, too, or the model is not told at all, so
    that its key is one whether it is said or not."""
    tokens, guidance = told.caption_tokens, told.guidance
    prediction, ends_in_noise = told.prediction, told.zero_terminal_snr
    if tokens == usual_tokens(checkpoint) or not checkpoint.face.lengths:
        tokens = None
    if guidance == GUIDANCE or not checkpoint.query.takes_guidance:
        guidance = None
    clip_skip = told.clip_skip
    if clip_skip == 1 or not checkpoint.face.skips_layers:
        clip_skip = None
    if checkpoint.prediction in (prediction, FLOW):
        prediction = None
    if ends_in_noise == checkpoint.ends_in_noise or checkpoint.prediction == FLOW:
        ends_in_noise = None
    return Told(tokens, guidance, prediction, ends_in_noise, clip_skip)


def usual_tokens(checkpoint: DenoiserCheckpoint) -> int | None:
    """Tokens of a caption that the T5 or Gemma of a model's pipeline reads; None without one."""
    usual = replace(checkpoint.query, told=Told())
    return next((length(usual) for length in checkpoint.face.lengths.values()), None)


def check_skip(checkpoint: DenoiserCheckpoint, clip_skip: int, where: str) -> None:
    """Refuse to take states of a CLIP from before its first layer.

    Raises
    ------
    InputError
        Saying how many layers it has.
    """
    config = Path(checkpoint.path, "text_encoder", CONFIG)
    layers = int(read_json(config, where)["num_hidden_layers"])
    if clip_skip > layers + 1:
        raise InputError(
            f"{where}: the text encoder of {checkpoint.path} has {layers} layers, so that it "
            f"should be at most {layers + 1}, but got {clip_skip}"
        )


def check_marks(checkpoint: DenoiserCheckpoint, name: str) -> None:
    """Refuse a file of weights that says that its network learned to predict something else, or on
    another schedule, than it is read by.

    Parameters
    ----------
    name : of the model, for messages.

    Raises
    ------
    InputError
        Naming the scheduler file, and what it should say.
    """
    if checkpoint.file is None:
        return
    marks, told = marks_in(Path(checkpoint.file), name), checkpoint.query.told
    learned, ends_in_noise = told.prediction, told.zero_terminal_snr
    is_velocity = (learned or checkpoint.prediction) == "v_prediction"
    is_rescaled = checkpoint.ends_in_noise if ends_in_noise is None else ends_in_noise
    place = Path(checkpoint.path, checkpoint.scheduler_folder, SCHEDULER)
    for mark, is_so, said, entry in (
        (VELOCITY, is_velocity, "prediction: v_prediction", '"prediction_type": "v_prediction"'),
        (
            ZERO_TERMINAL_SNR,
            is_rescaled,
            "zero_terminal_snr: true",
            '"rescale_betas_zero_snr": true',
        ),
    ):
        if mark in marks and not is_so:
            raise InputError(
                f"{name}: {checkpoint.file} holds the empty tensor {mark}, which says "
                f"`{said}`, and it would be read otherwise; write {entry} into {place}, or say "
                "it under `training` where it is a target"
            )


def check_resolution(checkpoint: DenoiserCheckpoint, side: int, where: str) -> None:
    """Refuse a size that the network cannot be asked at.

    Raises
    ------
    InputError
        Saying which it can.
    """
    config, scale = checkpoint.query.config, checkpoint.shape[1] // checkpoint.latent_shape[1]
    blocks, patch = config.get("block_out_channels"), config.get("patch_size") or 1
    of_latents = max(2 ** (len(blocks) - 1) if blocks else patch, checkpoint.face.packs)
    step = scale * of_latents
    if side % step:
        raise InputError(
            f"{where}: {checkpoint.path} takes images whose height and width are multiples of "
            f"{step}, but got {side}"
        )
    most = _positions(checkpoint)
    if most is not None and side > most * step:
        raise InputError(
            f"{where}: {checkpoint.path} has positions for images of up to {most * step} x "
            f"{most * step}, but got {side}"
        )


def _positions(checkpoint: DenoiserCheckpoint) -> int | None:
    """Patches in height and in width that a network has learned positions for; None where it
    makes them for any size."""
    stated = checkpoint.query.config.get("pos_embed_max_size")
    if not stated:
        return None
    positions = {"SD3Transformer2DModel": stated, "AuraFlowTransformer2DModel": isqrt(stated)}
    return positions.get(checkpoint.network.kind)
