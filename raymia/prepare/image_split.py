"""Members and held-out images of a target that is trained here, written as an audit reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raymia.prepare.split_files import write_split
from raymia.records.images import image_id
from raymia.records.pixels import as_picture
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.hashing import digest

Images = npt.NDArray[np.uint8]

MEMBERS_FILE = "members.parquet"
NON_MEMBERS_FILE = "non_members.parquet"
IMAGE_COLUMN = "image"
CAPTION_COLUMN = "caption"


@dataclass(frozen=True)
class ImageSplit:
    """Which images a model is trained on, and which are held out.

    Attributes
    ----------
    members, held_out : uint8 [count, channels, height, width]; no image is in both.
    facts : what the manifest says of the split; JSON-serializable.
    """

    members: Images
    held_out: Images
    facts: Mapping[str, Any]


def split_and_write(
    images: Images,
    captions: Sequence[str] | None,
    members: int,
    held_out: int,
    seed: int,
    out: Path,
) -> ImageSplit:
    """Draw members and held-out images, and write them to ``members.parquet`` and
    ``non_members.parquet``.

    Both are drawn without replacement from one shuffle, so they come from one distribution. Of
    images with equal pixels only the first can be drawn: its copy among the held-out images would
    be a member. Which image goes where is a function of the seed and of the images' order.

    Parameters
    ----------
    images : uint8 [count, channels, height, width], of 1 or 3 channels.
    captions : one per image; the files then have a column ``caption`` beside ``image``.
    members, held_out : how many of each.
    out : the folder; it is made where it is missing.

    Raises
    ------
    InputError
        If the images have another type or shape, too few of them are distinct, or ``out`` holds
        another split, which the models that lie beside it were trained on.
    """
    _check(images, captions)
    shape = images.shape[1:]
    ids = [image_id(np.ascontiguousarray(image).tobytes(), shape, None) for image in images]
    distinct = np.sort(np.unique(ids, return_index=True)[1])  # the first of each
    if members < 1 or held_out < 1 or members + held_out > len(distinct):
        raise InputError(
            f"{members} members and {held_out} held-out images are wanted, and there are "
            f"{len(distinct)} distinct images ({len(ids)} in all); give at least one of each, and "
            "no more than there are"
        )
    drawn = distinct[generator(seed, "image split").permutation(len(distinct))]
    places = {MEMBERS_FILE: drawn[:members], NON_MEMBERS_FILE: drawn[members:][:held_out]}
    contents = {
        name: parquet(images[rows], None if captions is None else [captions[i] for i in rows])
        for name, rows in places.items()
    }
    write_split(out, contents, "images")
    inside, outside = places.values()
    return ImageSplit(
        members=images[inside],
        held_out=images[outside],
        facts={
            "members": members,
            "held_out": held_out,
            "seed": seed,
            "image_shape": list(shape),
            "repeated_images_left_out": len(ids) - len(distinct),
            "members_hash": digest(sorted(ids[i] for i in inside)),
            "held_out_hash": digest(sorted(ids[i] for i in outside)),
        },
    )


def png(image: Images) -> bytes:
    """Encode an image [1 or 3, height, width] without loss."""
    content = io.BytesIO()
    as_picture(image).save(content, format="PNG")
    return content.getvalue()


def parquet(images: Images, captions: Sequence[str] | None) -> bytes:
    columns = {IMAGE_COLUMN: pa.array([png(image) for image in images], type=pa.binary())}
    if captions is not None:
        columns[CAPTION_COLUMN] = pa.array(captions, type=pa.string())
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    return content.getvalue()


def _check(images: Images, captions: Sequence[str] | None) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            "images should be uint8 [count, 1 or 3 channels, height, width], but got "
            f"{images.dtype} {list(images.shape)}"
        )
    if captions is not None and len(captions) != len(images):
        raise InputError(f"{len(images)} images have {len(captions)} captions; give one per image")
