"""How an actor loads a model that predicts pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.loaders import Loader
from raymia.models.memory import Memory
from raymia.models.pixels.memory import memory
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.pixels.resolver import PixelCheckpoint


@dataclass(frozen=True)
class PixelLoader(Loader):
    """Loads a model that predicts pixel by pixel.

    Attributes
    ----------
    batch_images : per forward pass, at most.
    """

    checkpoint: PixelCheckpoint
    batch_images: int

    def load(self) -> Any:
        from raymia.models.pixels.model import load_pixel_model

        self.checkpoint.check()
        return load_pixel_model(self.checkpoint, batch_images=self.batch_images)

    def memory(self, once: Once) -> Memory | None:
        return memory(self.checkpoint, self.batch_images, once)
