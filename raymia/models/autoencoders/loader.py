"""How an actor loads an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.autoencoders.memory import memory
from raymia.models.loaders import Loader
from raymia.models.memory import Memory
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.autoencoders.resolver import AutoencoderCheckpoint


@dataclass(frozen=True)
class AutoencoderLoader(Loader):
    """Loads an autoencoder.

    Attributes
    ----------
    batch_images : per forward pass, at most.
    """

    checkpoint: AutoencoderCheckpoint
    batch_images: int

    def load(self) -> Any:
        from raymia.models.autoencoders.model import load_autoencoder

        self.checkpoint.check()
        return load_autoencoder(self.checkpoint, batch_images=self.batch_images)

    def memory(self, once: Once) -> Memory | None:
        return memory(self.checkpoint, self.batch_images, once)
