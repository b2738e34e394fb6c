"""Small pictures that tests write to files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from raymia.records.images import pixels_array, read_image_records
from raymia.spec import ImageRecordsSpec
from raymia.util.errors import InputError


def picture(seed=0, size=(8, 8), mode="RGB"):
    """Random pixels of a size (width, height)."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), np.uint8)
    return Image.fromarray(pixels, mode=mode) if mode == "CMYK" else Image.fromarray(pixels)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width, height, depth=8, color=2):
    """A PNG of a size that its data does not have."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"\x00" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def raw(image):
    """Pixels as records hold them: [channels, height, width]."""
    pixels = np.asarray(image)
    return (pixels if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)).tobytes()


def read(shape=(3, 8, 8), **given):
    return read_image_records(ImageRecordsSpec(kind="image", **given), shape)


def pixels(records, is_member=True, shape=(3, 8, 8)):
    rows = [r["payload"] for r in records.table.to_pylist() if r["is_member"] is is_member]
    return pixels_array(rows, shape)


def captions(records):
    return [payload["caption"] for payload in records.table["payload"].to_pylist()]


def reasons(records):
    return [aside.reason for aside in records.set_aside]


def problem(**given):
    with pytest.raises(InputError) as caught:
        read(**given)
    (found,) = caught.value.problems
    return found


def found(records):
    return [image.tobytes() for image in pixels(records)]


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
