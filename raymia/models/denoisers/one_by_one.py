"""Diffusion models that are asked about one image, or one caption, at a time: what this does to
their keys, and what the plan says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raymia.util.listing import listed

if TYPE_CHECKING:
    from raymia.models.denoisers.resolver import DenoiserCheckpoint


def alone_parts(checkpoint: DenoiserCheckpoint) -> Mapping[str, Any]:
    """What is in the key of such a model, as earlier versions asked it in batches."""
    images = {"images_at_once": 1} if checkpoint.one_by_one else {}
    return {**images, **({"captions_at_once": 1} if checkpoint.reads_one_by_one else {})}


def asked_one_by_one(models: Mapping[str, DenoiserCheckpoint]) -> Iterator[str]:
    """A sentence on the models that are asked about one image at a time, and one on those that
    read one caption at a time.

    Parameters
    ----------
    models : by name.
    """
    alone = [name for name, model in models.items() if model.one_by_one]
    if alone:
        yield (
            f"{listed(alone, 3)}: asked about one image at a time, as other images in a batch "
            "would change the answers of such 8-bit weights; nf4 is asked in batches, which is "
            "faster"
        )
    reading = [name for name, model in models.items() if model.reads_one_by_one]
    if reading:
        yield (
            f"{listed(reading, 3)}: captions are read one at a time, as other captions in a batch "
            "would change what such 8-bit text encoders say of them"
        )
