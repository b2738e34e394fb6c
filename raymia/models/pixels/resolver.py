"""Models that predict pixel by pixel: what they are, from their configs and headers alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from raymia.models.checkpoint import Capabilities
from raymia.models.fit import check_fit
from raymia.models.image_source import (
    CONFIG,
    TRANSFORMERS_WEIGHTS,
    ImageFolder,
    ImageModel,
    check_unquantized,
    describe_part,
)
from raymia.models.pixels.loader import PixelLoader
from raymia.models.source import read_json
from raymia.spec import PoolSpec
from raymia.util.errors import InputError
from raymia.util.stated import NUMBER, WHOLE, Kind, stated

PALETTE = "preprocessor_config.json"
COLORS = Kind("a list of colors of three numbers each", lambda value: _are_colors(value))
LOADS = "ImageGPTForCausalImageModeling"
"""The class of transformers that loads it."""


@dataclass(frozen=True)
class PixelCheckpoint(ImageModel):
    """transformers' ImageGPT.

    Attributes
    ----------
    colors : of the palette that pixels are taken from.
    parameters : numbers in its weights.
    """

    colors: int
    parameters: int

    family = "pixels"
    what = "ImageGPT"

    @classmethod
    def reads(cls, folder: ImageFolder) -> bool:
        return folder.kind == "imagegpt"

    @classmethod
    def resolve(cls, folder: ImageFolder) -> Self:
        check_unquantized(folder, cls.family)
        config, place = folder.config or {}, f"{folder.where}: {folder.path / CONFIG}"
        pixels: int = stated(config, "n_positions", WHOLE, place)
        vocabulary: int = stated(config, "vocab_size", WHOLE, place)
        described = describe_part(folder.path, LOADS, folder, TRANSFORMERS_WEIGHTS)
        side = math.isqrt(pixels)
        if side * side != pixels:
            raise InputError(
                f"{folder.where}: {folder.path / CONFIG} has {pixels} n_positions, and those of a "
                "square image would be a square number"
            )
        colors = read_palette(folder.path, folder.where)
        if len(colors) + 1 != vocabulary:
            raise InputError(
                f"{folder.where}: {folder.path / PALETTE} has {len(colors)} colors, and "
                f"{CONFIG} a vocabulary of {vocabulary}, of which one starts an image; copy the "
                "checkpoint's own"
            )
        check_fit(described, folder.path, folder.where, folder.once)
        return cls(
            path=str(folder.path),
            shape=(3, side, side),
            latent_shape=(3, side, side),
            quantization=folder.quantization,
            dtype=folder.dtype,
            colors=len(colors),
            parameters=sum(math.prod(tensor.shape) for _, tensor in described.tensors),
        )

    @property
    def capabilities(self) -> Capabilities:
        lacks = {"generation": "an ImageGPT generates no images here"}
        return Capabilities(self.family, frozenset({"weights"}), lacks)

    def loader(self, pool: PoolSpec) -> PixelLoader:
        return PixelLoader(self, pool.batch_images)

    def describe(self) -> str:
        return f"ImageGPT, {self.parameters:,} parameters, {self.colors} colors"


def _are_colors(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(color, list) and len(color) == 3 and all(map(NUMBER.holds, color))
        for color in value
    )


def read_palette(folder: Path, where: str) -> list[list[float]]:
    """The colors that the model's pixels are taken from, in [-1, 1].

    Raises
    ------
    InputError
        If the folder does not say.
    """
    config = read_json(folder / PALETTE, where)
    if not config.get("clusters"):
        raise InputError(
            f"{where}: {folder / PALETTE}: no clusters, the colors that the model's pixels are "
            "taken from"
        )
    colors: list[list[float]] = stated(config, "clusters", COLORS, f"{where}: {folder / PALETTE}")
    return colors
