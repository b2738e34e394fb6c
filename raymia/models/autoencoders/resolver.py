"""Autoencoders in folders: what they are, from their configs and headers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from raymia.models.autoencoders.loader import AutoencoderLoader
from raymia.models.checkpoint import Capabilities
from raymia.models.image_source import (
    CONFIG,
    DIFFUSERS_WEIGHTS,
    ImageFolder,
    ImageModel,
    check_part,
    check_unquantized,
    variant_in,
)
from raymia.models.source import weights_in
from raymia.spec import PoolSpec
from raymia.spec.images import Shape
from raymia.util.errors import InputError
from raymia.util.optional import require
from raymia.util.stated import NUMBER, WHOLE, WHOLES, stated, stated_if

OWN_AUTOENCODER = "raymia.autoencoder"
"""``_class_name`` in the config of raymia's own autoencoders."""
KL_AUTOENCODER = "AutoencoderKL"


@dataclass(frozen=True)
class AutoencoderCheckpoint(ImageModel):
    """diffusers' AutoencoderKL, or an autoencoder of raymia's own.

    Attributes
    ----------
    objective : what it was trained on; "kl" for an AutoencoderKL.
    latents : shape of an image's latents.
    parameters : numbers in its weights.
    variant : of its weights' file names, as "fp16"; None for plain ones.
    """

    objective: str
    latents: tuple[int, ...]
    parameters: int
    variant: str | None

    family = "autoencoder"
    what = f"{KL_AUTOENCODER} or raymia's autoencoders"

    @classmethod
    def reads(cls, folder: ImageFolder) -> bool:
        return folder.kind in (OWN_AUTOENCODER, KL_AUTOENCODER)

    @classmethod
    def resolve(cls, folder: ImageFolder) -> Self:
        check_unquantized(folder, cls.family)
        own = folder.kind == OWN_AUTOENCODER
        objective, shape, latents = _own(folder) if own else _kl(folder)
        if own:
            variant, tensors = None, weights_in(folder.path, folder.where, folder.once)
        else:
            variant, tensors = variant_in(folder.path, DIFFUSERS_WEIGHTS, folder)
            check_part(folder.path, KL_AUTOENCODER, folder)
        return cls(
            path=str(folder.path),
            shape=shape,
            latent_shape=shape,
            quantization=folder.quantization,
            dtype=folder.dtype,
            objective=objective,
            latents=latents,
            parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()),
            variant=variant,
        )

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.family, frozenset({"weights", "generation", "autoencoder"}))

    def loader(self, pool: PoolSpec) -> AutoencoderLoader:
        return AutoencoderLoader(self, pool.batch_images)

    def describe(self) -> str:
        latents = " x ".join(map(str, self.latents))
        return f"{self.objective} autoencoder, {self.parameters:,} parameters, latents {latents}"


def _own(folder: ImageFolder) -> tuple[str, Shape, tuple[int, ...]]:
    from raymia.models.autoencoders.vae.config import read_config

    try:
        config = read_config(folder.path)
    except InputError as error:
        raise InputError(f"{folder.where}: {problem}" for problem in error.problems) from None
    return config.objective, config.image_shape, (config.latent,)


def _kl(folder: ImageFolder) -> tuple[str, Shape, tuple[int, ...]]:
    folder.once(require, "diffusers", "models of the class AutoencoderKL", where=folder.where)
    config = folder.config or {}
    place = f"{folder.where}: {folder.path / CONFIG}"
    size: int = stated(config, "sample_size", WHOLE, place)
    stages: list[int] = stated(config, "block_out_channels", WHOLES, place)
    stated_if(config, "scaling_factor", NUMBER, place)
    side = size // 2 ** (len(stages) - 1)
    shape = (stated(config, "in_channels", WHOLE, place), size, size)
    return "kl", shape, (stated(config, "latent_channels", WHOLE, place), side, side)
