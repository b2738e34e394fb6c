"""There is nothing to load of a model of which there are generated images alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raymia.models.loaders import Loader

if TYPE_CHECKING:
    from raymia.models.samples.resolver import Samples


@dataclass(frozen=True)
class NothingToLoad(Loader):
    """Stands where a loader is expected; nothing is asked of samples."""

    checkpoint: Samples

    def load(self) -> Any:
        raise ValueError(f"{self.checkpoint.label}: samples are looked at, and nothing is loaded")
