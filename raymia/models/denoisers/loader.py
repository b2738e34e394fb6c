"""How an actor loads a diffusion model, and several on one base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.denoisers.memory import memory
from raymia.models.loaders import Loader, Sharing
from raymia.models.memory import Memory
from raymia.models.one_base import load_on_one_base
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

    @property
    def sharing(self) -> Sharing | None:
        """The base is the same folder or file in the same quantization and dtype, and is told the
        same; LoRAs and DoRAs of any shape can be switched on it."""
        c = self.checkpoint
        base = (c.path, c.file, c.quantization, c.dtype, *c.query.told.given.items())
        return Sharing(base, "LORA" if c.adapters else None)

    def load_with(self, others: Sequence[Loader]) -> Callable[[int], Any]:
        loaders = [self, *(other for other in others if isinstance(other, DenoiserLoader))]
        if len(loaders) != 1 + len(others):
            raise ValueError("models that share a base are all diffusion models")
        return load_on_one_base(loaders, _load)


def _load(loaders: Sequence[DenoiserLoader]) -> Callable[[int], Any]:
    from raymia.models.denoisers.model import DenoiserFamily

    checkpoints = [loader.checkpoint for loader in loaders]
    return DenoiserFamily(checkpoints, [loader.batch_images for loader in loaders]).use
