"""The families of denoising networks: what each reads captions with, and how it is asked.

One row per family, so that what differs is seen at a glance; a new family is a new row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raymia.models.denoisers.query import GUIDANCE, Query

if TYPE_CHECKING:
    from torch import Tensor

    from raymia.models.denoisers.captions import Condition, TextEncoder

Encoders = Mapping[str, "TextEncoder"]
"""Text encoders by their part of the pipeline."""


def _tokens(usual: int) -> Callable[[Query], int]:
    return lambda query: query.told.caption_tokens or usual


_length, _length_of_flux, _length_of_sana = map(_tokens, (256, 512, 300))
"""Tokens that the T5 of Stable Diffusion 3 and AuraFlow and the Gemma of Lumina 2 read, that of
FLUX.1, and that of Sana, unless the training says otherwise."""
BEFORE_CAPTION = (
    "You are an assistant designed to generate superior images with the superior degree of "
    "image-text alignment based on textual prompts or user prompts. <Prompt Start> "
)
"""What Lumina 2 is told before each caption that is not empty."""

Read = Callable[[Encoders, Sequence[str], Query], "Condition"]
Ask = Callable[[Any, "Tensor", "Tensor", "Condition", Query], "Tensor"]


@dataclass(frozen=True)
class Face:
    """A family of networks.

    Attributes
    ----------
    name : that people know.
    ask : from the network, x_t, timesteps [batch], the condition to the network's output.
    encoders : classes of the text encoders that it needs, by part of the pipeline.
    optional : parts that a pipeline may leave out.
    read : from captions to the condition; None for networks without text.
    is_flow : whether it was trained by flow matching; None where its scheduler says.
    packs : pixels of a latent, in height and in width, that make one token of the network.
    lengths : tokens of a caption that a text encoder reads, by its part of the pipeline, where that
        is not what it has positions for.
    sees_padding : whether the network sees what fills up a caption to that length.
    spelled : a caption as it is given to the tokenizers.
    is_told_of_cuts : whether it is told what size each image had, and what of it was cut off.
    skips_layers : whether some are trained on states of a layer before the last of their CLIP.
    """

    name: str
    ask: Ask
    encoders: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()
    read: Read | None = None
    is_flow: bool | None = None
    packs: int = 1
    lengths: Mapping[str, Callable[[Query], int]] = field(default_factory=dict)
    sees_padding: bool = False
    spelled: Callable[[str], str] = str
    is_told_of_cuts: bool = False
    skips_layers: bool = False


# ------------------------------------------------------------------ from captions


def _states_of_clip(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    encoder = encoders["text_encoder"]
    said = encoder(captions)
    if query.told.clip_skip is None:
        return {"encoder_hidden_states": said[0]}
    states = said.hidden_states[-query.told.clip_skip]
    # transformers once had a text_model within the encoder.
    within = getattr(encoder.model, "text_model", encoder.model)
    return {"encoder_hidden_states": within.final_layer_norm(states)}


def _two_clips(encoders: Encoders, captions: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
    """States before the last layer side by side, and what each CLIP says of the whole caption."""
    import torch

    said = [encoders[part](captions) for part in ("text_encoder", "text_encoder_2")]
    return torch.cat([one.hidden_states[-2] for one in said], dim=-1), [one[0] for one in said]


def _with_sizes(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    states, pooled = _two_clips(encoders, captions)
    # Original size, upper left corner of the crop, and size: of an image that was not cut.
    sizes = states.new_tensor([[*query.size, 0, 0, *query.size]]).expand(len(captions), -1)
    return {"encoder_hidden_states": states, "text_embeds": pooled[1], "time_ids": sizes}


def _t5_of_pixart(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    encoder = encoders["text_encoder"]
    tokens, mask = encoder.tokens([*map(_in_lower_case, captions)], _length_of_pixart(query))
    states = encoder.model(tokens, attention_mask=mask)[0]
    found = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    if _takes_sizes(query.config):
        height, width = query.size
        size = states.new_tensor([[height, width]]).expand(len(captions), -1)
        found |= {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}
    return found


def _in_lower_case(caption: str) -> str:
    return caption.lower().strip()


def _length_of_pixart(query: Query) -> int:
    usual = 300 if query.pipeline == "PixArtSigmaPipeline" else 120
    return query.told.caption_tokens or usual


def _takes_sizes(config: Mapping[str, Any]) -> bool:
    said = config.get("use_additional_conditions")
    return config.get("sample_size") == 128 if said is None else bool(said)


def _clips_and_t5(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    import torch

    states, pooled = _two_clips(encoders, captions)
    if "text_encoder_3" in encoders:
        encoder = encoders["text_encoder_3"]
        more = encoder.model(encoder.tokens(captions, _length(query))[0])[0]
    else:
        width = int(query.config["joint_attention_dim"])
        more = states.new_zeros(len(captions), _length(query), width)
    states = torch.nn.functional.pad(states, (0, more.shape[-1] - states.shape[-1]))
    return {
        "encoder_hidden_states": torch.cat([states, more], dim=-2),
        "pooled_projections": torch.cat(pooled, dim=-1),
    }


def _pooled_and_t5(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    encoder = encoders["text_encoder_2"]
    tokens, _ = encoder.tokens(captions, _length_of_flux(query))
    return {
        "encoder_hidden_states": encoder.model(tokens)[0],
        "pooled_projections": encoders["text_encoder"](captions).pooler_output,
    }


def _masked_t5(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    encoder = encoders["text_encoder"]
    tokens, mask = encoder.tokens(captions, _length(query))
    states = encoder.model(tokens, attention_mask=mask)[0]
    return {"encoder_hidden_states": states * mask[..., None].to(states.dtype)}


def _gemma_of_lumina(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    encoder = encoders["text_encoder"]
    tokens, mask = encoder.tokens([*map(_after_system, captions)], _length(query), side="right")
    said = encoder.model(tokens, attention_mask=mask, output_hidden_states=True, use_cache=False)
    return {"encoder_hidden_states": said.hidden_states[-2], "encoder_attention_mask": mask}


def _after_system(caption: str) -> str:
    return BEFORE_CAPTION + caption if caption else ""


def _gemma_of_sana(encoders: Encoders, captions: Sequence[str], query: Query) -> Condition:
    encoder, lowered = encoders["text_encoder"], [*map(_in_lower_case, captions)]
    tokens, mask = encoder.tokens(lowered, _length_of_sana(query), side="right")
    states = encoder.model(tokens, attention_mask=mask, use_cache=False)[0]
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def _classes(_: Encoders, captions: Sequence[str], query: Query) -> Condition:
    import torch

    # The caption of a record that has a class is its number; see raymia.records.conditioning.
    known = int(query.config["num_class_embeds"])
    numbers = [int(caption) for caption in captions]
    if max(numbers) >= known:
        raise ValueError(f"class {max(numbers)} is none of the {known} of the network")
    return {"class_labels": torch.tensor(numbers)}


# ------------------------------------------------------------------ to the network


def _plainly(network: Any, noisy: Tensor, times: Tensor, given: Condition, _: Query) -> Tensor:
    output: Tensor = network(noisy, timestep=times, **given).sample
    return output


def _without_class(network: Any, noisy: Tensor, times: Tensor, _: Condition, by: Query) -> Tensor:
    import torch

    # The class after the last stands for none.
    none = torch.full_like(times, int(by.config["num_embeds_ada_norm"]))
    output: Tensor = network(noisy, times, class_labels=none).sample
    return output


def _with_class(network: Any, noisy: Tensor, times: Tensor, given: Condition, _: Query) -> Tensor:
    output: Tensor = network(noisy, times, given["class_labels"].to(noisy.device)).sample
    return output


def _with_added(network: Any, noisy: Tensor, times: Tensor, given: Condition, _: Query) -> Tensor:
    own = {name: given[name] for name in given if name.startswith("encoder_")}
    added = {name: given[name] for name in given if name not in own}
    if not added:
        added = {"resolution": None, "aspect_ratio": None}  # type: ignore[dict-item]
    output: Tensor = network(noisy, timestep=times, added_cond_kwargs=added, **own).sample
    return output


def _by_share(network: Any, noisy: Tensor, times: Tensor, given: Condition, _: Query) -> Tensor:
    output: Tensor = network(noisy, timestep=(times / 1000).to(noisy.dtype), **given).sample
    return output


def _backwards(network: Any, noisy: Tensor, times: Tensor, given: Condition, _: Query) -> Tensor:
    """From noise at 0 to the image at 1."""
    share = (1 - times / 1000).to(noisy.dtype)
    output: Tensor = network(noisy, timestep=share, **given).sample
    return -output


def _scaled(network: Any, noisy: Tensor, times: Tensor, given: Condition, by: Query) -> Tensor:
    times = times * float(by.config.get("timestep_scale", 1))
    return _plainly(network, noisy, times, given, by)


def _packed(network: Any, noisy: Tensor, times: Tensor, given: Condition, by: Query) -> Tensor:
    """Two by two pixels of a latent are a token, with its place in the image."""
    import torch

    batch, channels, height, width = noisy.shape
    rows, columns = height // 2, width // 2
    tokens = noisy.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    places = noisy.new_zeros(rows, columns, 3)
    places[..., 1] += torch.arange(rows, device=noisy.device)[:, None]
    places[..., 2] += torch.arange(columns, device=noisy.device)
    if by.takes_guidance:
        guidance = GUIDANCE if by.told.guidance is None else by.told.guidance
        given = {**given, "guidance": noisy.new_full((batch,), guidance)}
    output: Tensor = network(
        tokens.reshape(batch, rows * columns, channels * 4),
        timestep=(times / 1000).to(noisy.dtype),
        txt_ids=noisy.new_zeros(given["encoder_hidden_states"].shape[1], 3),
        img_ids=places.reshape(rows * columns, 3),
        **given,
    ).sample
    output = output.reshape(batch, rows, columns, -1, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return output.reshape(batch, -1, height, width)


CLIP, CLIP_2 = ("CLIPTextModel",), ("CLIPTextModelWithProjection",)
T5 = ("T5EncoderModel", "UMT5EncoderModel")
GEMMA = ("Gemma2Model",)
SDXL, FLUX = "SDXL", "FLUX.1"
OF_CLASSES = "UNet with classes"

FACES = {
    "UNet2DModel": Face("UNet", _plainly, {}),
    "UNet2DConditionModel": Face(
        "Stable Diffusion",
        _plainly,
        {"text_encoder": CLIP},
        read=_states_of_clip,
        skips_layers=True,
    ),
    SDXL: Face(
        SDXL,
        _with_added,
        {"text_encoder": CLIP, "text_encoder_2": CLIP_2},
        read=_with_sizes,
        is_told_of_cuts=True,
    ),
    "DiTTransformer2DModel": Face("DiT", _without_class, {}),
    "Transformer2DModel": Face("DiT", _without_class, {}),
    "PixArtTransformer2DModel": Face(
        "PixArt",
        _with_added,
        {"text_encoder": T5},
        read=_t5_of_pixart,
        lengths={"text_encoder": _length_of_pixart},
        spelled=_in_lower_case,
    ),
    "SD3Transformer2DModel": Face(
        "Stable Diffusion 3",
        _plainly,
        {"text_encoder": CLIP_2, "text_encoder_2": CLIP_2, "text_encoder_3": T5},
        optional=frozenset({"text_encoder_3"}),
        read=_clips_and_t5,
        is_flow=True,
        lengths={"text_encoder_3": _length},
        sees_padding=True,
    ),
    "FluxTransformer2DModel": Face(
        FLUX,
        _packed,
        {"text_encoder": CLIP, "text_encoder_2": T5},
        read=_pooled_and_t5,
        is_flow=True,
        packs=2,
        lengths={"text_encoder_2": _length_of_flux},
        sees_padding=True,
    ),
    "AuraFlowTransformer2DModel": Face(
        "AuraFlow",
        _by_share,
        {"text_encoder": T5},
        read=_masked_t5,
        is_flow=True,
        lengths={"text_encoder": _length},
        sees_padding=True,
    ),
    "Lumina2Transformer2DModel": Face(
        "Lumina 2",
        _backwards,
        {"text_encoder": GEMMA},
        read=_gemma_of_lumina,
        is_flow=True,
        lengths={"text_encoder": _length},
        spelled=_after_system,
    ),
    "SanaTransformer2DModel": Face(
        "Sana",
        _scaled,
        {"text_encoder": GEMMA},
        read=_gemma_of_sana,
        is_flow=True,
        lengths={"text_encoder": _length_of_sana},
        spelled=_in_lower_case,
    ),
    OF_CLASSES: Face(OF_CLASSES, _with_class, {}, read=_classes),
}
"""Families by the class of their network; those that take more conditions have a name of their own
in its place."""


def face_of(config: Mapping[str, Any]) -> Face | None:
    """The family of a network by its config; None for one that nobody here knows how to ask."""
    kind = str(config.get("_class_name"))
    if kind == "UNet2DConditionModel" and config.get("addition_embed_type") == "text_time":
        kind = SDXL
    is_numbered = config.get("num_class_embeds") is not None and not config.get("class_embed_type")
    if kind == "UNet2DModel" and is_numbered:
        kind = OF_CLASSES
    return FACES.get(kind)
