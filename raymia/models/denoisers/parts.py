"""The parts of a diffusion model's folder: which there are, of which class, and how they were
saved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymia.models.denoisers.faces import Face
from raymia.models.denoisers.networks import Latent, check_autoencoder
from raymia.models.image_source import (
    CONFIG,
    INDEX,
    TRANSFORMERS_WEIGHTS,
    ImageFolder,
    weights_of,
)
from raymia.models.saved_quantization import (
    IN_DIFFUSERS,
    TORCHAO,
    rounds_inputs,
    saved_quantization,
)
from raymia.models.source import names_in, read_json
from raymia.util.errors import InputError
from raymia.util.listing import listed

NETWORKS, AUTOENCODERS = ("transformer", "unet"), ("vae", "vqvae")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")


@dataclass(frozen=True)
class Part:
    """One model of a pipeline.

    Attributes
    ----------
    kind : its class in diffusers or transformers.
    folder : within the pipeline's; "." for a pipeline that lies flat in its folder.
    variant : of its weights' file names, as "fp16"; None for plain ones.
    saved_as : how its weights were quantized when they were saved; None where they were not.
    file : that holds its weights in its authors' layout; None where they lie in its folder.
    rounds_inputs : whether its layers round what enters them to whole numbers, which makes an
        answer depend on its batch.
    """

    kind: str
    folder: str
    variant: str | None
    saved_as: str | None = None
    file: str | None = None
    rounds_inputs: bool = False


def network_folder(path: Path) -> str:
    """The subfolder of a pipeline's denoising network: ``unet`` or ``transformer``; "." where the
    pipeline lies flat in its folder."""
    index = read_json(path / INDEX) if (path / INDEX).is_file() else {}
    found = _one_of(NETWORKS, path, index)
    return found or ("." if (path / CONFIG).is_file() else "unet")


def _one_of(names: Sequence[str], path: Path, index: Mapping[str, Any]) -> str | None:
    """The subfolder of a pipeline that is there by one of some names; of several, the one that its
    index names."""
    there = [name for name in names if (path / name).is_dir()]
    return next((name for name in there if _given(index, name)), next(iter(there), None))


def network_in(
    folder: ImageFolder, index: Mapping[str, Any]
) -> tuple[Part, Mapping[str, Any], int]:
    """The denoising network, its config, and how many parameters it has."""
    path, where = folder.path, folder.where
    name = network_folder(path)
    if not (path / name).is_dir():
        raise InputError(
            f"{where}: {path} is a {index.get('_class_name')} without a unet or a transformer "
            f"(found: {names_in(path)}); raymia asks the denoising network of a DDPM"
        )
    config = read_json(path / name / CONFIG, where)
    kind = str(config.get("_class_name"))
    variant, tensors = weights_of(path / name, kind, folder)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors.values())
    return _part(folder, kind, name, variant), config, parameters


def _part(folder: ImageFolder, kind: str, name: str, variant: str | None) -> Part:
    config = folder.path / name / CONFIG
    settings = read_json(config, folder.where).get("quantization_config")
    saved_as = saved_quantization(settings, config, folder.where, folder.once, IN_DIFFUSERS)
    return Part(kind, name, variant, saved_as, folder.file_of(name), rounds_inputs(settings))


def autoencoder_in(
    folder: ImageFolder, index: Mapping[str, Any]
) -> tuple[Part | None, Latent | None]:
    """The autoencoder, and what its config says of latents; None for a pipeline in pixels."""
    name = _one_of(AUTOENCODERS, folder.path, index)
    lost = [part for part in AUTOENCODERS if _given(index, part)]
    if name is None and lost:
        raise InputError(
            f"{folder.where}: {folder.path} has no {lost[0]}, which its {INDEX} names; copy or "
            "download the whole folder"
        )
    if name is None:
        return None, None
    file = folder.path / name / CONFIG
    latent = check_autoencoder(read_json(file, folder.where), file, folder.where)
    variant, _ = weights_of(file.parent, latent.kind, folder)
    return _part(folder, latent.kind, name, variant), latent


def text_encoders_in(folder: ImageFolder, index: Mapping[str, Any], face: Face) -> tuple[Part, ...]:
    """The text encoders of a pipeline, as its family needs them."""
    pipeline, parts = f"{folder.path} is a {index.get('_class_name')}", []
    more = [p for p in ENCODERS if _given(index, p) and p not in face.encoders]
    if more:
        raise InputError(
            f"{folder.where}: {pipeline} with {listed(more)}, and raymia asks {face.name} "
            f"with {listed([*face.encoders]) or 'no text encoder'}"
        )
    for name, kinds in face.encoders.items():
        kind = _given(index, name)
        if kind is None:
            continue  # its network is looked at next
        if kind not in kinds:
            raise InputError(
                f"{folder.where}: {pipeline}, whose {name} is a {kind}; raymia reads captions of "
                f"{face.name} with a {' or '.join(kinds)} there"
            )
        variant, _ = weights_of(folder.path / name, kind, folder, TRANSFORMERS_WEIGHTS)
        parts.append(_part(folder, kind, name, variant))
    lost = [p for p in face.encoders if not _given(index, p) and p not in face.optional]
    if parts and lost:
        raise InputError(
            f"{folder.where}: {pipeline} without {listed(lost)}, which {face.name} reads captions "
            "with; save the whole pipeline with save_pretrained(folder)"
        )
    return tuple(parts)


def refuse_without_gpu(parts: Sequence[Part | None], folder: ImageFolder) -> None:
    """Refuse parts that bitsandbytes saved where there is no GPU: diffusers reads them on GPUs
    alone. transformers reads text encoders so on a CPU, too.

    Raises
    ------
    InputError
        Naming the part.
    """
    for part in parts:
        if part is not None and part.saved_as not in (None, TORCHAO) and not folder.on_gpu:
            raise InputError(
                f"{folder.where}: {folder.path / part.folder} was saved quantized "
                f"({part.saved_as}), which diffusers reads on GPUs alone; give the pool a GPU "
                "(gpus under resources), or the model that it was made from"
            )


def _given(index: Mapping[str, Any], part: str) -> str | None:
    """The class of a part that an index names; None where the pipeline has none."""
    entry = index.get(part)
    return str(entry[1]) if isinstance(entry, list) and len(entry) == 2 and entry[0] else None
