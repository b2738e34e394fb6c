"""Members and held-out images of a target that is trained here, written as an audit reads them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raymia.prepare.split_files import write_split
from raymia.prepare.units import drawn_units
from raymia.records.images import image_id
from raymia.records.pixels import as_picture
from raymia.util.draws import generator
from raymia.util.errors import InputError
from raymia.util.hashing import digest

Images = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]
Value = TypeVar("Value")

MEMBERS_FILE = "members.parquet"
NON_MEMBERS_FILE = "non_members.parquet"
IMAGE_COLUMN = "image"
CAPTION_COLUMN = "caption"
GROUP_COLUMN = "group"


@dataclass(frozen=True)
class ImageSplit:
    """Which images a model is trained on, and which are held out.

    Attributes
    ----------
    members, held_out : uint8 [count, channels, height, width]; no image is in both.
    member_captions, held_out_captions : one per image; None where none are given.
    facts : what the manifest says of the split; JSON-serializable.
    records : what an audit says of the files that are written.
    """

    members: Images
    held_out: Images
    member_captions: tuple[str, ...] | None
    held_out_captions: tuple[str, ...] | None
    facts: Mapping[str, Any]
    records: Mapping[str, Any]


def split_and_write(
    images: Images,
    captions: Sequence[str] | None,
    members: int,
    held_out: int,
    seed: int,
    out: Path | None,
    groups: Sequence[str | None] | None = None,
) -> ImageSplit:
    """Draw members and held-out images, and write them to ``members.parquet`` and
    ``non_members.parquet``.

    Both are drawn without replacement from one shuffle, so they come from one distribution. Of
    images with equal pixels only the first can be drawn: its copy among the held-out images would
    be a member. Which image goes where is a function of the seed and of the images' order. Images
    of one group go to one side, so that there may be some more or fewer of them than are wanted.

    Parameters
    ----------
    images : uint8 [count, channels, height, width], of 1 or 3 channels.
    captions : one per image; the files then have a column ``caption`` beside ``image``.
    members, held_out : how many of each.
    out : the folder; it is made where it is missing. None writes nothing.
    groups : of each image, None for one that is alone; the files then have a column ``group``.

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
    draws = generator(seed, "image split")
    if groups is None:
        drawn = distinct[draws.permutation(len(distinct))]
        inside, outside = drawn[:members], drawn[members:][:held_out]
    else:
        inside, outside = _whole_groups(distinct, groups, members, held_out, draws)
    return written_split(
        images, captions, groups, inside, outside, seed, out, left_out=len(ids) - len(distinct)
    )


def written_split(
    images: Images,
    captions: Sequence[str] | None,
    groups: Sequence[str | None] | None,
    inside: Rows,
    outside: Rows,
    seed: int,
    out: Path | None,
    *,
    left_out: int = 0,
) -> ImageSplit:
    """A split whose rows are drawn, written to ``members.parquet`` and ``non_members.parquet``.

    Parameters
    ----------
    inside, outside : rows of members and of held-out images.
    left_out : images that repeat others.
    images, captions, groups, seed, out : as for :func:`split_and_write`.

    Raises
    ------
    InputError
        If ``out`` holds another split.
    """
    contents = {
        name: parquet(images[rows], _at(captions, rows), _at(groups, rows))
        for name, rows in ((MEMBERS_FILE, inside), (NON_MEMBERS_FILE, outside))
    }
    if out is not None:
        write_split(out, contents, "images")
    shape = images.shape[1:]
    hashes = (
        digest(sorted(image_id(np.ascontiguousarray(one).tobytes(), shape, None) for one in part))
        for part in (images[inside], images[outside])
    )
    members_hash, held_out_hash = hashes
    return ImageSplit(
        members=images[inside],
        held_out=images[outside],
        member_captions=_at(captions, inside),
        held_out_captions=_at(captions, outside),
        facts={
            "members": len(inside),
            "held_out": len(outside),
            "seed": seed,
            "image_shape": list(shape),
            "repeated_images_left_out": left_out,
            "members_hash": members_hash,
            "held_out_hash": held_out_hash,
        },
        records={
            "kind": "image",
            "members": [MEMBERS_FILE],
            "non_members": [NON_MEMBERS_FILE],
            "split": "randomized",
            **({} if captions is None else {"caption_column": CAPTION_COLUMN}),
            **({} if groups is None else {"group_column": GROUP_COLUMN}),
        },
    )


def _whole_groups(
    distinct: Rows,
    groups: Sequence[str | None],
    members: int,
    held_out: int,
    draws: np.random.Generator,
) -> tuple[Rows, Rows]:
    """Rows of members and of held-out images; of one group all, and each by the same chance."""
    units: dict[str, list[int]] = {}
    for row in distinct:
        name = groups[row]
        units.setdefault(f"image {row}" if name is None else f"group {name}", []).append(int(row))
    rows = list(units.values())
    largest = max(map(len, rows))
    if largest > min(members, held_out):
        raise InputError(
            f"{members} members and {held_out} held-out images are wanted of {len(distinct)} "
            f"distinct images in {len(rows)} groups, none of them on both sides, and {largest} are "
            "of one group; give more of each, or smaller groups"
        )
    inside, outside = (
        np.array([row for number in numbers for row in rows[number]], dtype=np.int64)
        for numbers in drawn_units([len(one) for one in rows], [members, held_out], draws)
    )
    return inside, outside


def _at(values: Sequence[Value] | None, rows: Rows) -> tuple[Value, ...] | None:
    return None if values is None else tuple(values[row] for row in rows)


def png(image: Images) -> bytes:
    """Encode an image [1 or 3, height, width] without loss."""
    content = io.BytesIO()
    as_picture(image).save(content, format="PNG")
    return content.getvalue()


def parquet(
    images: Images,
    captions: Sequence[str] | None,
    groups: Sequence[str | None] | None = None,
) -> bytes:
    columns = {IMAGE_COLUMN: pa.array([png(image) for image in images], type=pa.binary())}
    if captions is not None:
        columns[CAPTION_COLUMN] = pa.array(captions, type=pa.string())
    if groups is not None:
        columns[GROUP_COLUMN] = pa.array(groups, type=pa.string())
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
