"""Targets of which there is nothing but images that they generated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from raymia.evidence.image import Images as Pixels
from raymia.modalities.images.prior import Read
from raymia.models.samples.resolver import Samples
from raymia.records.base import Others, SetAside
from raymia.records.images import pixels_array, without_captions
from raymia.spec import SamplesTarget


@dataclass(frozen=True)
class Generated:
    """What a target generated.

    Attributes
    ----------
    pixels : uint8 [samples, channels, height, width]: each as often as it was given, since a model
        that writes a picture again and again has learnt it by heart.
    checkpoint : stands for the model.
    different : how many differ from each other.
    """

    pixels: Pixels
    checkpoint: Samples
    different: int

    def remarks(self, name: str) -> Iterator[str]:
        """A sentence on the samples of a target where some repeat others."""
        count = len(self.pixels)
        if self.different < count:
            yield (
                f"{name}: {count - self.different:,} of {count:,} samples repeat another pixel by "
                "pixel, and count as often as they were given"
            )


def read_samples(target: SamplesTarget, where: str, read: Read, aside: list[SetAside]) -> Generated:
    """Read what a target generated.

    Parameters
    ----------
    where : the target in the audit file, for messages.
    read : images that are no records, from paths, as records are prepared.
    aside : samples that cannot be used are added to it.

    Raises
    ------
    InputError
        For files that cannot be read, or when not one sample can be used.
    """
    ids: list[str] = []
    others = Others("sample", f"{where}.samples", aside=aside, each=ids)
    found = read(target.samples, spec=without_captions(read.keywords["spec"]), others=others)
    shape = read.keywords["shape"]
    return Generated(
        pixels_array([found[one] for one in ids], shape),
        Samples.of(target.samples, ids, shape),
        len(found),
    )
