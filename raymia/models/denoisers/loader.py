"""How an actor loads a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.denoisers.memory import memory
from raymia.models.loaders import Loader
from raymia.models.memory import Memory
from raymia.util.once import Once

if TYPE_CHECKING:
    from raymia.models.denoisers.resolver import DenoiserCheckpoint


@dataclass(frozen=True)
class DenoiserLoader(Loader):
    """Loads a diffusion model.

    Attributes
    ----------
    batch_images : per forward pass, at most.
    """

    checkpoint: DenoiserCheckpoint
    batch_images: int

    def load(self) -> Any:
        from raymia.models.denoisers.model import load_denoiser

        self.checkpoint.check()
        return load_denoiser(self.checkpoint, batch_images=self.batch_images)

    def memory(self, once: Once) -> Memory | None:
        return memory(self.checkpoint, self.batch_images, once)
