"""Images beside their captions, as trainings take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from raymia.util.errors import InputError
from raymia.util.hashing import digest

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Captioned:
    """Images with what a network is told of each.

    Attributes
    ----------
    pixels : uint8 [N, C, H, W].
    captions : one per image, of a model of classes their numbers; None for the empty caption.
    """

    pixels: Images
    captions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.captions is not None and len(self.captions) != len(self.pixels):
            raise InputError(
                f"{len(self.pixels)} images have {len(self.captions)} captions; give one per image"
            )

    @classmethod
    def of(cls, images: Images | Captioned) -> Captioned:
        """Images as they are, or without captions."""
        return images if isinstance(images, Captioned) else cls(images)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Captioned:
        return Captioned(self.pixels[rows], self.captions_of(rows))

    def captions_of(self, rows: slice | npt.NDArray[np.int64]) -> tuple[str, ...] | None:
        """The captions of some."""
        if self.captions is None:
            return None
        if isinstance(rows, slice):
            return self.captions[rows]
        return tuple(self.captions[row] for row in rows)

    @property
    def captions_hash(self) -> str | None:
        return None if self.captions is None else digest(self.captions)


def cycled(captions: Sequence[str], count: int) -> tuple[str, ...]:
    """So many captions, from the first again after the last."""
    return tuple(captions[number % len(captions)] for number in range(count))
