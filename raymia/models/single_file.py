"""Models of images that are one file: what each is by the names of its tensors, and what to do
instead of naming it as a model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from raymia.models.source import PICKLES
from raymia.storage.safetensors import read_header
from raymia.util.errors import InputError

SAFE = ".safetensors"
WHOLE = {
    "model.diffusion_model.joint_blocks.": "StableDiffusion3Pipeline",
    "model.diffusion_model.double_blocks.": "FluxPipeline",
    "conditioner.embedders.": "StableDiffusionXLPipeline",
    "cond_stage_model.": "StableDiffusionPipeline",
}
"""Pipelines by how the names of some of their tensors begin, in files of their authors' layout."""
NETWORKS = ("model.diffusion_model.", "double_blocks.", "joint_blocks.", "down_blocks.")
EMBEDDINGS = {"emb_params", "clip_l", "clip_g", "t5xxl"}
"""What the web UI and diffusers call embeddings of textual inversion, beside the word itself."""
ADAPTERS = ("lora", "hada_", "lokr_", "dora_scale")


def refuse_single_file(name: str, where: str) -> None:
    """Refuse a model that is named as one file, with what the file is and how it becomes a folder;
    does nothing where the name is no file's.

    Raises
    ------
    InputError
        For a file of weights.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        return
    place = f"{where}: {name} is one file"
    if any(file.match(pattern) for pattern in PICKLES):
        raise InputError(
            f"{place}, and a pickle, which raymia does not read; convert it to safetensors where "
            "you trust it, and save a pipeline's folder from that"
        )
    if file.suffix != SAFE:
        raise InputError(f"{place}; give the folder of the checkpoint")
    names = read_header(file, where)
    refuse_adapters(names, place)
    kind = next((kind for start, kind in WHOLE.items() if _any(names, start)), None)
    if kind is None and any(_any(names, start) for start in NETWORKS):
        raise InputError(
            f"{place} with a network and no text encoder, autoencoder or schedule; name the folder "
            "of its base's pipeline, with its weights, as `config` beside `model`"
        )
    raise InputError(
        f"{place}, and what its parts are stands in no config; name a local folder of a "
        f"{kind or 'DiffusionPipeline'} of its family, of which the JSON and tokenizer files are "
        "enough, as `config` beside `model`"
    )


def refuse_adapters(names: Collection[str], place: str) -> None:
    """Refuse a file whose tensors are those of an adapter, or words that were learned.

    Parameters
    ----------
    place : the file, for messages.

    Raises
    ------
    InputError
        Saying where it belongs.
    """
    held = None
    if any(part in name for name in names for part in ADAPTERS):
        held = "a LoRA or the like"
    elif are_embeddings(names):
        held = "embeddings of textual inversion"
    if held is not None:
        raise InputError(
            f"{place} with {held}; name it as `adapter`, and its base's folder as `model`"
        )


def are_embeddings(names: Collection[str]) -> bool:
    """Whether a file's tensors are the words that textual inversion learned."""
    is_a_word = len(names) == 1 and not any("." in name or "lora" in name for name in names)
    return bool(names) and (is_a_word or set(names) <= EMBEDDINGS)


def _any(names: Collection[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)
