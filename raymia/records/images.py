"""Reading image records: content ids, sizes, captions; what cannot be used is set aside.

A picture is what it decodes to: the same pixels in PNG and in BMP are one record.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.records.base import (
    Given,
    Others,
    RecordSet,
    gather_others,
    gather_records,
    group_name,
)
from raymia.records.found_image import FoundImage
from raymia.records.image_files import find_images
from raymia.records.pixels import Preparation, UnusableImageError, quiet, shape_of, to_pixels
from raymia.spec import ImageRecordsSpec
from raymia.spec.images import Deep, Shape
from raymia.util.errors import InputError
from raymia.util.hashing import digest_bytes

SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("payload", pa.struct([("pixels", pa.large_binary()), ("caption", pa.string())])),
        ("is_member", pa.bool_()),
        ("group", pa.string()),
    ]
)
"""One row per record: content id, pixels (uint8 [channels, height, width]) and caption (null for
none), membership (null for candidates), and the group that it belongs to (null for none)."""

_REMOTE_THREADS = 16
"""Reading over a network waits more than it computes."""
_MAX_THREADS = 8
_CHUNK = 16
"""Images per task. Small images one by one cost more in hand-overs than they gain from threads."""

TURNED = (
    "turned upright as the orientation of their EXIF says, as diffusers' trainers see them; to one "
    "that does not read it, as kohya's, they lay as they are stored: store them so where yours did"
)
"""What is said of images that do not lie as they are stored."""

Progress = Callable[[int], None]
"""Told how many images were looked at so far."""


def image_id(pixels: bytes, shape: Shape, caption: str | None) -> str:
    """The id of an image record: a hash of its shape, its pixels and its caption."""
    words = b"" if caption is None else b"\n" + caption.encode()
    return digest_bytes("x".join(map(str, shape)).encode() + b"\n" + pixels + words)


def read_image_records(
    spec: ImageRecordsSpec,
    shape: Shape,
    progress: Progress | None = None,
    *,
    prepared: Preparation | None = None,
) -> RecordSet:
    """Read members, non-members and candidates; see :func:`raymia.records.base.gather_records`.

    Parameters
    ----------
    shape : channels (1 or 3), height and width that the models take.
    prepared : how; None for as the spec's ``fit`` says.

    Returns
    -------
    Records whose payload is of the type of ``SCHEMA``.

    Raises
    ------
    InputError
        For paths that cannot be read (all of them together), or when a class has paths but not one
        usable image.
    """
    _check_channels(shape)
    how = prepared or Preparation(spec.fit)
    read = _reader(spec, shape, how, with_groups=True, progress=progress)
    with quiet():
        return gather_records(spec, read, SCHEMA)


def read_other_images(
    paths: Sequence[str],
    spec: ImageRecordsSpec,
    shape: Shape,
    others: Others,
    *,
    prepared: Preparation | None = None,
) -> dict[str, dict[str, Any]]:
    """Read images that are none of the records: a population, the members of a shadow.

    See :func:`raymia.records.base.gather_others`. Columns and fit are those of the records.

    Returns
    -------
    Payloads ``{"pixels": bytes, "caption": str | None}`` by record id, in the order of the files.
    """
    _check_channels(shape)
    read = _reader(spec, shape, prepared or Preparation(spec.fit), with_groups=False)
    with quiet():
        return gather_others(paths, read, "an image", others)


def without_captions(spec: ImageRecordsSpec) -> ImageRecordsSpec:
    """The same for images that no model is asked about, which need neither caption nor class."""
    bare = {"caption_column": None, "class_column": None, "folder_prompts": False}
    return spec.model_copy(update=bare)


def shape_of_first(spec: ImageRecordsSpec) -> Shape:
    """Channels, height and width of the first of the images, where no model says what it takes."""
    paths = [*spec.members, *spec.non_members, *spec.candidates]
    for path in paths:
        for found in find_images(path, spec, with_groups=False):
            try:
                return shape_of(found.load().content)
            except UnusableImageError:
                continue
    raise InputError(f"records: not one image can be read in {', '.join(paths)}")


def pixels_of(payloads: pa.ChunkedArray, shape: Shape) -> npt.NDArray[np.uint8]:
    """The pixels of a column of payloads as an array uint8 [n, channels, height, width], put there
    one image after another."""
    array = np.empty((len(payloads), *shape), np.uint8)
    for row, pixels in zip(array, pc.struct_field(payloads, "pixels"), strict=True):
        row[...] = np.frombuffer(pixels.as_buffer(), np.uint8).reshape(shape)
    return array


def pixels_array(payloads: Sequence[Mapping[str, Any]], shape: Shape) -> npt.NDArray[np.uint8]:
    """The pixels of payloads as an array uint8 [n, channels, height, width]."""
    array = np.empty((len(payloads), *shape), np.uint8)
    for row, payload in zip(array, payloads, strict=True):
        row[...] = np.frombuffer(payload["pixels"], np.uint8).reshape(shape)
    return array


def _check_channels(shape: Shape) -> None:
    if shape[0] not in (1, 3):
        raise InputError(
            f"records: images are read in grey or RGB, and the models take {shape[0]} channels"
        )


def _reader(
    spec: ImageRecordsSpec,
    shape: Shape,
    how: Preparation,
    *,
    with_groups: bool,
    progress: Progress | None = None,
) -> Callable[[str], Iterator[Given]]:
    looked_at = 0

    def read(path: str) -> Iterator[Given]:
        nonlocal looked_at
        found = find_images(path, spec, with_groups=with_groups)
        for given in _in_order(found, shape, how, spec.sixteen_bit, _threads(path)):
            yield given
            looked_at += 1
            if progress is not None:
                progress(looked_at)

    return read


def _in_order(
    found: Iterator[FoundImage], shape: Shape, how: Preparation, deep: Deep, threads: int
) -> Iterator[Given]:
    """Decode images side by side, and no further ahead than keeps the threads busy."""
    waiting: deque[Future[list[Given]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        while chunk := list(islice(found, _CHUNK)):
            waiting.append(pool.submit(_given_all, chunk, shape, how, deep))
            if len(waiting) > threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _threads(path: str) -> int:
    return _REMOTE_THREADS if "://" in path else min(_MAX_THREADS, os.cpu_count() or 1)


def _given_all(images: list[FoundImage], shape: Shape, how: Preparation, deep: Deep) -> list[Given]:
    return [_given(image, shape, how, deep) for image in images]


def _given(image: FoundImage, shape: Shape, how: Preparation, deep: Deep) -> Given:
    try:
        loaded = image.load()
        prepared = to_pixels(loaded.content, shape, how, deep)
    except UnusableImageError as unusable:
        return Given(image.where, reason=str(unusable))
    payload = {"pixels": prepared.pixels, "caption": loaded.caption}
    identifier = image_id(prepared.pixels, shape, loaded.caption)
    remarks = [
        *image.remarks,
        *loaded.remarks,
        *([enlarged(shape)] if prepared.is_enlarged else []),
        *([TURNED] if prepared.is_turned else []),
    ]
    return Given(image.where, identifier, payload, group_name(image.group), remarks=tuple(remarks))


def enlarged(shape: Shape) -> str:
    """What is said of images that were scaled up."""
    return f"smaller than {shape[2]} x {shape[1]} pixels (width x height), and scaled up"
