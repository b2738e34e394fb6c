"""What attacks on images share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from raymia.attacks.base import Attack

DENOISER, AUTOENCODER, PIXELS = "denoiser", "autoencoder", "pixels"
"""Families of image models; the last predicts pixel by pixel."""


@dataclass(frozen=True)
class ImageAttack(Attack):
    """Base of attacks on images: ``score`` takes :class:`raymia.evidence.image.ImageEvidence`."""

    records: ClassVar[tuple[str, ...]] = ("image",)
    asks: ClassVar[tuple[str, ...]] = ("terms",)
    families: ClassVar[frozenset[str]] = frozenset({DENOISER, AUTOENCODER, PIXELS})
