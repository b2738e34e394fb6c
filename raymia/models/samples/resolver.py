"""What is known of a model of which there are generated images alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from raymia.models.checkpoint import Capabilities
from raymia.models.image_source import ImageCheckpoint
from raymia.models.samples.loader import NothingToLoad
from raymia.spec import PoolSpec
from raymia.spec.images import Shape
from raymia.util.hashing import digest


@dataclass(frozen=True)
class Samples(ImageCheckpoint):
    """Images that a model generated, in place of the model.

    Attributes
    ----------
    places : of the images, as the audit file has them.
    """

    places: tuple[str, ...]

    family = "samples"
    computes = False

    @classmethod
    def of(cls, places: Sequence[str], ids: Iterable[str], shape: Shape) -> Self:
        """The samples of a target.

        Parameters
        ----------
        ids : of the images, which are hashes of their content; of one that was given several times,
            so many.
        """
        fingerprint = digest({"samples": sorted(ids)})
        return cls(shape, shape, tuple(places), fingerprint=fingerprint)

    @property
    def label(self) -> str:
        return ", ".join(self.places)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.family, frozenset({"generated_images"}))

    def loader(self, _: PoolSpec) -> NothingToLoad:
        return NothingToLoad(self)

    def describe(self) -> str:
        return "generated images alone"
