"""What is known of an image before it is decoded: where it lies, and how its bytes are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from raymia.records.pixels import MAX_BYTES, UnusableImageError, came
from raymia.storage.remote import StorageError

IMAGES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff",
    ".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".pbm", ".pgm", ".ppm", ".pnm", ".tga",
    ".psd", ".svg", ".ico",
)  # fmt: skip
"""Names of images; those of formats that are not read are set aside, not passed over."""

RAW = (".dng", ".nef", ".nrw", ".cr2", ".arw", ".sr2", ".pef", ".srw", ".3fr", ".erf", ".iiq")
"""Names of raw photos, which begin as a TIFF; its only page may be a small preview."""

_BEGINNINGS = (
    b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP  ",
    b"\0\0\0\x0cJXL ", b"\xff\x0a",
)  # fmt: skip
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Of the images among the files that begin as an MP4 does."""

NO_FILE = "no such file"
RAW_PHOTO = "a raw photo; convert it to an image of the size that was trained on"
CANNOT_OPEN = "a file that cannot be opened"


class Loaded(NamedTuple):
    """What was read of an image.

    Attributes
    ----------
    content : its encoded bytes.
    caption : or its class; None where neither is asked for.
    remarks : what the reading has shown, as those of :class:`FoundImage`.
    """

    content: bytes
    caption: str | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundImage:
    """An image that was found, not yet read or decoded.

    Attributes
    ----------
    load : reads it; raises UnusableImageError. May be called in another thread.
    group : value of ``group_column``.
    remarks : what one should know of it, each as the end of a sentence that begins with it.
    """

    where: str
    load: Callable[[], Loaded]
    group: Any = None
    remarks: tuple[str, ...] = ()


def read_image(fs: Any, name: str, max_bytes: int = MAX_BYTES + 1) -> bytes:
    """Read a file, and no more of it than an image may have."""
    try:
        if isinstance(fs, LocalFileSystem) and not Path(name).is_file():
            raise FileNotFoundError
        content: bytes = fs.cat_file(name, start=0, end=max_bytes)
        return content
    except FileNotFoundError:
        raise UnusableImageError(NO_FILE + came(name)) from None
    except StorageError:  # the next run may have the image
        raise
    except Exception as error:  # each filesystem raises errors of its own
        raise UnusableImageError(CANNOT_OPEN + came(error or type(error).__name__)) from None


def begins_as_image(fs: Any, name: str) -> bool:
    """Whether a file begins as an image does, whatever it is called."""
    try:
        start = read_image(fs, name, 32)
    except UnusableImageError:
        return False
    is_bitmap = start.startswith(b"BM") and start[6:10] == bytes(4)
    is_in_box = start[4:8] == b"ftyp" and start[8:12] in _BRANDS
    is_webp = start[8:12] == b"WEBP"
    return start.startswith(_BEGINNINGS) or is_bitmap or is_in_box or is_webp


def is_image(name: str) -> bool:
    return name.lower().endswith(IMAGES)


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))
