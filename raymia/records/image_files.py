"""Where images are found: folders, tars, and tables that hold images or name them.

Nothing is decoded here, and nothing is written to disk. What a tar's member is called never reaches
a filesystem. A table may name any file on its own filesystem, as whoever runs an audit may; it
cannot make raymia reach for another.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import IO, Any

import fsspec

from raymia.records.conditioning import Condition, condition_of
from raymia.records.found_image import FoundImage, Loaded, is_hidden, is_image, read_image
from raymia.records.image_folders import TARS, images_in_folder
from raymia.records.pixels import MAX_BYTES, UnusableImageError, came
from raymia.records.saved_datasets import is_saved_dataset
from raymia.records.tables import TableRow, is_table, read_rows
from raymia.spec import ImageRecordsSpec
from raymia.storage.files import opened
from raymia.storage.refusals import refusals
from raymia.storage.remote import filesystem
from raymia.storage.shards import is_one_file, is_pattern, matches
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.strict_json import parse_json

OTHER_FILESYSTEM = "on another filesystem than the file that names it"
NOT_IMAGE_VALUE = "neither the bytes of an image nor a path to one"
LINK = "a link in a tar, which is not followed"
NO_IMAGE_IN_SAMPLE = "a sample of a tar without an image"
SEVERAL_IMAGES = (
    "one of several images whose names are the same up to the first dot, which makes them one "
    "sample; name the suffix of one as image_column, or give them as a folder if each is a record"
)


def find_images(
    path: str, spec: ImageRecordsSpec, *, with_groups: bool = True
) -> Iterator[FoundImage]:
    """Yield the images under a path, in a fixed order.

    Parameters
    ----------
    path : a folder, searched recursively in the order of names; a table of images or of paths
        relative to the file; a .tar, in which members that follow each other and are called the
        same up to the first dot are one sample; or a pattern of such. Hidden files (``.name``) are
        passed over.
    with_groups : whether ``group_column`` is read.

    Raises
    ------
    InputError
        If the path is missing or malformed, or lacks a column or images.
    """
    with refusals(path, "pattern"):
        pattern = is_pattern(path) and not is_one_file(path, False)
        found = matches(path) if pattern else [path]
    if not found:
        raise InputError(f"{path}: nothing matches this")
    group = spec.group_column if with_groups else None
    return (image for one in found for image in _images_of(one, spec, group))


def _images_of(path: str, spec: ImageRecordsSpec, group: str | None) -> Iterator[FoundImage]:
    """The images under a path, whatever signs are in its name."""
    condition, name = condition_of(spec), path.lower()
    if name.endswith(TARS):
        return _tar(path, spec.image_column, condition, group)
    if is_table(path) or is_saved_dataset(path):
        return _table(path, spec.image_column, condition, group)
    return images_in_folder(path, spec, condition, group)


# ----------------------------------------------------------------------------- tables


def _table(
    path: str, image_column: str, condition: Condition | None, group: str | None
) -> Iterator[FoundImage]:
    columns = {"image_column": image_column, "group_column": group}
    if condition is not None:
        columns[condition.key] = condition.column
    with refusals(path, "table"):
        fs, name = filesystem(path)
        folder = name.rpartition("/")[0] if is_one_file(path, is_table(path)) else name
    for row in read_rows(path, columns):
        load = partial(_load_cell, fs, folder, row, condition)
        yield FoundImage(row.where, load, row.values.get("group_column"))


def named_in_table(path: str, image_column: str) -> Iterator[str]:
    """The local files that a local table of images names by paths relative to it, once each; none
    where the path is no table.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    if not (is_table(path) or is_saved_dataset(path)):
        return
    folder = path.rpartition("/")[0] if is_one_file(path, is_table(path)) else path
    seen: set[str] = set()
    for row in read_rows(path, {"image_column": image_column}):
        value = row.values.get("image_column")
        if isinstance(value, dict):
            value = value.get("path") if value.get("bytes") is None else None
        if isinstance(value, str) and value.strip() and not value.startswith("/"):
            name = f"{folder}/{value}"
            if "://" not in value and name not in seen:
                seen.add(name)
                yield name


def _load_cell(fs: Any, folder: str, row: TableRow, condition: Condition | None) -> Loaded:
    if (reason := row.why_not("image_column")) is not None:
        raise UnusableImageError(reason)
    caption = None if condition is None else condition.of(row.values[condition.key])
    value = row.values["image_column"]
    if isinstance(value, dict):  # an image as Hugging Face's datasets write it
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return Loaded(value, caption)
    if isinstance(value, str) and value.strip():
        return Loaded(read_image(fs, _beside(fs, folder, value)), caption)
    kind = "null" if value is None else "an empty text" if value == "" else type(value).__name__
    raise UnusableImageError(NOT_IMAGE_VALUE + came(kind))


def _beside(fs: Any, folder: str, name: str) -> str:
    """Where the file is that a table in a folder names."""
    protocol, _ = fsspec.core.split_protocol(name)
    if protocol is None:
        return name if name.startswith("/") else f"{folder}/{name}"
    if protocol not in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol):
        raise UnusableImageError(OTHER_FILESYSTEM + came(name))
    return str(fs._strip_protocol(name))


# ------------------------------------------------------------------------------- tars


_OF_HEADERS = frozenset(
    {
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
    }
)
"""Types of members that are read whole before the member that they are about."""


class _Header(tarfile.TarInfo):
    """A member's header; a damaged one stops the reading, which would take it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _OF_HEADERS and header.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size:,} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from None


BEYOND_THE_END, HEADER_BYTES = 1_000, 2**20
"""Reads at the end of a file that a tar may take, and bytes of one member's names and settings."""


class _UpToTheEnd(io.RawIOBase):
    """A file that stops whoever goes on reading at its end: a header may name a size of many times
    the file's, through which tarfile would go piece by piece."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self._beyond = file, 0

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._beyond += not content
        if self._beyond > BEYOND_THE_END:
            raise tarfile.ReadError("unexpected end of data")
        return content


@dataclass
class _Sample:
    """What a tar holds under one name.

    Attributes
    ----------
    name : of its first image, or of its first member.
    names : of its images.
    images : suffix and content of each; None for a link, empty where it is not needed, as of a
        second image of the name that is wanted.
    facts : its .json.
    reason : why it cannot be used, as far as that is known without decoding.
    """

    name: str = ""
    names: list[str] = field(default_factory=list)
    images: list[tuple[str, bytes | None]] = field(default_factory=list)
    caption: bytes | None = None
    facts: bytes | None = None
    reason: str | None = None


def _tar(
    path: str, image_column: str, condition: Condition | None, group: str | None
) -> Iterator[FoundImage]:
    wanted = image_column.lower().lstrip(".")
    caption = None if condition is None else condition.suffix.lower()
    with (
        refusals(path, "tar"),
        opened(path) as file,
        tarfile.open(fileobj=_UpToTheEnd(file), mode="r|*", tarinfo=_Header) as tar,
    ):
        members = (m for m in tar if not m.isdir() and not is_hidden(m.name))
        for _, parts in groupby(members, key=lambda member: _split(member.name)[0]):
            sample = _Sample()
            for member in parts:
                sample.name = sample.name or member.name
                _add(sample, tar, member, wanted, caption, group is not None)
            sample.reason = _why_unusable(sample, wanted)
            load = partial(_load_sample, sample, wanted, condition)
            of_group = _group_of(sample, group, f"{path} {sample.name}")
            for name in sample.names if sample.reason and sample.names else [sample.name]:
                yield FoundImage(f"{path} {name}", load, of_group)


def _split(name: str) -> tuple[str, str]:
    """The sample that a member belongs to, and its suffix: all that follows the first dot."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _add(
    sample: _Sample,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    wanted: str,
    caption: str | None,
    with_facts: bool,
) -> None:
    """Read a member of a sample if it may be used; of several images, the first and the first that
    is named."""
    suffix = _split(member.name)[1]
    if is_image(f".{suffix}"):
        if not sample.images:
            sample.name = member.name
        held = not sample.images or (
            _is_named(suffix, wanted)
            and not any(_is_named(other, wanted) for other, _ in sample.images)
        )
        sample.names.append(member.name)
        sample.images.append((suffix, _member(tar, member) if held else b""))
    elif suffix == caption:
        sample.caption = _member(tar, member)
    elif suffix == "json" and with_facts:
        sample.facts = _member(tar, member)


def _chosen(sample: _Sample, wanted: str) -> list[tuple[str, bytes | None]]:
    """The images of a sample that may be meant; only of one can the content be had."""
    return [image for image in sample.images if _is_named(image[0], wanted)] or sample.images


def _is_named(suffix: str, wanted: str) -> bool:
    return suffix == wanted or suffix.startswith(f"{wanted}.")


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    """A member's content; None for links and devices."""
    if not member.isreg():
        return None
    file = tar.extractfile(member) or io.BytesIO()
    return file.read(MAX_BYTES + 1)


def _group_of(sample: _Sample, column: str | None, where: str) -> Any:
    if column is None or not sample.images:
        return None
    if sample.facts is None:
        raise InputError(
            f"{where}: group_column is {column!r}, and there is no .json beside this image"
        )
    try:
        facts = parse_json(sample.facts)
    except ValueError as error:
        raise InputError(f"{where}: its .json is not valid JSON: {error}") from None
    if not isinstance(facts, dict) or column not in facts:
        found = ", ".join(map(str, facts)) if isinstance(facts, dict) else type(facts).__name__
        raise InputError(
            f"{where}: no key {column!r} in its .json; found: {found or 'none'}. Name the "
            "right one as group_column in the audit file"
        )
    return facts[column]


def _why_unusable(sample: _Sample, wanted: str) -> str | None:
    """Why no image of a sample is the one that is meant; None where one is."""
    if not sample.images:
        return NO_IMAGE_IN_SAMPLE
    if len(_chosen(sample, wanted)) == 1:
        return None
    return SEVERAL_IMAGES + came(listed([suffix for suffix, _ in sample.images]))


def _load_sample(sample: _Sample, wanted: str, condition: Condition | None) -> Loaded:
    if sample.reason is not None:
        raise UnusableImageError(sample.reason)
    _, content = _chosen(sample, wanted)[0]
    if content is None:
        raise UnusableImageError(LINK)
    if condition is None:
        return Loaded(content, None)
    if sample.caption is None:
        raise UnusableImageError(f"{condition.lack}: no member of its name has the suffix")
    return Loaded(content, condition.within(sample.caption))
