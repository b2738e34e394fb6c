"""Images in folders, with what stands beside them: files of captions, tables of metadata, names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

from raymia.records.conditioning import NO_CAPTION, Condition, lines_of
from raymia.records.found_image import (
    NO_FILE,
    RAW,
    RAW_PHOTO,
    FoundImage,
    Loaded,
    begins_as_image,
    is_hidden,
    is_image,
    read_image,
)
from raymia.records.pixels import UnusableImageError, came
from raymia.records.tables import TableRow, column_names, is_table, read_rows
from raymia.records.texts import why_no_text
from raymia.spec import ImageRecordsSpec
from raymia.storage.refusals import refusals
from raymia.storage.remote import filesystem
from raymia.storage.shards import walk
from raymia.util.errors import InputError
from raymia.util.listing import listed

TARS = (".tar", ".tar.gz", ".tgz")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Tables that datasets' image folders have beside the images they are about."""
FILE_NAME = "file_name"
"""Their column of images, relative to the table."""
REPEATED_FOLDER = re.compile(r"(?P<repeats>\d+)_(?P<prompt>.+)")
"""What kohya's scripts call a folder of images."""
GIVEN_PROMPT = "without a caption of its own, and given the prompt that its folder is called by"
MORE_LINES = (
    "with a caption of several lines, of which the first is read, as kohya's scripts do without "
    "`enable_wildcard`"
)
NO_PROMPT = "its folder is not called as kohya's scripts call theirs, as `10_name`"


@dataclass(frozen=True)
class _Folder:
    """A folder of images.

    Attributes
    ----------
    path : as the audit file has it; the places of images begin with it.
    root : the same in the filesystem.
    names : of all files there, in the filesystem.
    rows : what tables of metadata say, by the name of the image; several where it is named again.
    tables : those that were read.
    prompts : whether folders are called by the prompt of their images.
    """

    path: str
    fs: Any
    root: str
    names: frozenset[str]
    condition: Condition | None
    rows: Mapping[str, Sequence[TableRow]] = field(default_factory=dict)
    tables: Sequence[str] = ()
    prompts: bool = False

    def where(self, name: str) -> str:
        return self.path.rstrip("/") + name.removeprefix(self.root.rstrip("/"))


def images_in_folder(
    path: str, spec: ImageRecordsSpec, condition: Condition | None, group: str | None
) -> Iterator[FoundImage]:
    """Yield the images of a folder, in the order of their names; of one that a table of metadata
    names several times, one for each time.

    Raises
    ------
    InputError
        If there are none, or a table lacks a column.
    """
    with refusals(path, "folder"):
        fs, root = filesystem(path)
        names = [name for name in walk(fs, root) if not is_hidden(name.removeprefix(root))]
        beside = () if condition is None else (f".{condition.suffix}",)
        found = [n for n in names if is_image(n) or _is_called_otherwise(fs, n, beside)]
        if not found:
            _refuse(path, exists=bool(names) or fs.exists(root), names=names)
    folder = _Folder(path, fs, root, frozenset(names), condition, prompts=spec.folder_prompts)
    if condition is not None or group is not None:
        folder = _with_metadata(folder, group)
    named = folder.rows.keys() & folder.names  # by a table, so an image whatever it is called
    for name in sorted({*found, *named}):
        for row in folder.rows.get(name, (None,)):
            yield _image(folder, name, row)
    for name, rows in folder.rows.items():
        if name not in folder.names:
            yield from (FoundImage(row.where, partial(_missing, row)) for row in rows)


def _is_called_otherwise(fs: Any, name: str, beside: tuple[str, ...]) -> bool:
    """Whether a file is an image though its name does not say so, as ``photo.jpg_large``.

    Parameters
    ----------
    beside : how names of captions end.
    """
    return not is_table(name) and not name.endswith(beside) and begins_as_image(fs, name)


def _missing(row: TableRow) -> Loaded:
    named = row.values.get("image_column")
    raise UnusableImageError(row.why_not("image_column") or NO_FILE + came(named))


def _refuse(path: str, *, exists: bool, names: list[str]) -> None:
    if not exists:
        raise InputError(f"{path}: no such file or folder")
    kinds = sorted({PurePosixPath(name).suffix or "no suffix" for name in names})
    raise InputError(
        f"{path}: no images found here, but files of: {', '.join(kinds[:8]) or 'none'}. Images "
        "are read from a folder of them, or from files whose names end in .parquet, .jsonl, .csv "
        f"or {', '.join(TARS)}"
    )


# -------------------------------------------------------------------- tables of metadata


def _with_metadata(folder: _Folder, group: str | None) -> _Folder:
    """The same with the rows of its tables that have what is asked for."""
    tables = sorted(n for n in folder.names if n.rpartition("/")[2] in METADATA)
    rows: dict[str, list[TableRow]] = {}
    read = []
    for table in tables:
        columns = _columns(folder, table, group)
        if columns is None:
            continue
        read.append(table)
        for row in read_rows(folder.where(table), columns):
            named = row.values.get("image_column")
            beside = normpath(f"{table.rpartition('/')[0]}/{named}") if named else ""
            rows.setdefault(beside, []).append(row)
    if group is not None and not read:
        raise InputError(
            f"{folder.path}: group_column is {group!r}, and a folder of images has no columns; "
            "list the images and their groups in a CSV, JSONL or Parquet file, or in a "
            f"{METADATA[0]} beside them, or leave out group_column"
        )
    return replace(folder, rows=rows, tables=read)


def _columns(folder: _Folder, table: str, group: str | None) -> dict[str, str | None] | None:
    """The columns to read of a table by the keys of the audit file; None where captions are in
    files of their own, beside the images."""
    place, condition = folder.where(table), folder.condition
    known = column_names(place)
    wanted: dict[str, str | None] = {"image_column": FILE_NAME, "group_column": group}
    if condition is not None and condition.column in known:
        wanted[condition.key] = condition.column
    elif group is None and _has_files_beside(folder, table):
        return None
    elif condition is not None and not _has_files_beside(folder, table):
        raise InputError(
            f"{place}: no column {condition.column!r}, and no files beside the images end in "
            f".{condition.suffix}; found: {listed(known)}. Name the right one as {condition.key} "
            "in the audit file"
        )
    return wanted


def _has_files_beside(folder: _Folder, table: str) -> bool:
    """Whether captions stand in files of their own, or in the names of folders."""
    start, suffix = f"{table.rpartition('/')[0]}/", folder.condition and folder.condition.suffix
    return folder.prompts or any(
        name.startswith(start) and name.endswith(f".{suffix}") for name in folder.names
    )


# ------------------------------------------------------------------------------ one image


def _image(folder: _Folder, name: str, row: TableRow | None) -> FoundImage:
    remarks = []
    prompt: str | None = None
    if folder.prompts:
        match = REPEATED_FOLDER.fullmatch(name.split("/")[-2])
        if match is not None:
            prompt = match["prompt"].strip()
            remarks.append(f"seen {match['repeats']} times an epoch, as its folder's name says")
            if not _has_caption(folder, name, row):
                remarks.append(GIVEN_PROMPT)
    group = None if row is None else row.values.get("group_column")
    load = partial(_load, folder, name, row, prompt)
    return FoundImage(folder.where(name), load, group, tuple(remarks))


def _beside(folder: _Folder, name: str) -> str | None:
    condition = folder.condition
    return None if condition is None else f"{name.rpartition('.')[0]}.{condition.suffix}"


def _has_caption(folder: _Folder, name: str, row: TableRow | None) -> bool:
    return _is_in_row(folder, row) or _beside(folder, name) in folder.names


def _has_more_lines(caption: bytes) -> bool:
    """Whether a caption's own file has words below its first line."""
    return any(line.strip() for line in lines_of(caption.decode())[1:])


def _is_in_row(folder: _Folder, row: TableRow | None) -> bool:
    condition = folder.condition
    return condition is not None and row is not None and condition.key in row.values


def _load(folder: _Folder, name: str, row: TableRow | None, prompt: str | None) -> Loaded:
    if name.lower().endswith(RAW):
        raise UnusableImageError(RAW_PHOTO)
    content = read_image(folder.fs, name)
    condition = folder.condition
    if condition is None and not folder.prompts:
        return Loaded(content, None)
    if condition is not None and row is not None and _is_in_row(folder, row):
        return Loaded(content, condition.of(row.values[condition.key]))
    if condition is not None and (beside := _beside(folder, name)) in folder.names:
        own = read_image(folder.fs, str(beside))
        caption = condition.within(own, first_line=folder.prompts)
        is_cut = folder.prompts and _has_more_lines(own)
        return Loaded(content, caption, (MORE_LINES,) if is_cut else ())
    if folder.prompts and prompt is not None:
        if (reason := why_no_text(prompt)) is not None:
            raise UnusableImageError(f"{NO_CAPTION}: its folder's name is {reason}")
        return Loaded(content, prompt)
    lack = NO_CAPTION if condition is None else condition.lack
    raise UnusableImageError(f"{lack}: {_why_none(folder, name)}")


def _why_none(folder: _Folder, name: str) -> str:
    if folder.prompts:
        return NO_PROMPT
    about = [table for table in folder.tables if name.startswith(table.rpartition("/")[0] + "/")]
    if about:
        return f"{about[-1].rpartition('/')[2]} beside it has no row for it"
    return f"no file of its name that ends in .{folder.condition and folder.condition.suffix}"
