"""Folders that `datasets` saved a table to: which of the files there are of the table.

Beside the files of the table lie those of an earlier save that had more of them, and what a map, a
filter or a shuffle of the loaded table left there. `datasets` reads what state.json names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raymia.records.formats import ARROW
from raymia.storage.files import opened
from raymia.storage.refusals import refusals
from raymia.storage.remote import filesystem
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.strict_json import parse_json

SPLITS = "dataset_dict.json"
INFO, STATE = "dataset_info.json", "state.json"
"""What is saved beside a table; SPLITS, beside the folders of splits."""
NOT_NAMED = "a file that the state.json of its folder does not name, so no part of the saved table"

Files = Mapping[str, str | None]
"""Files in the order in which they are read, each with why it is not read, None where it is."""


def is_saved_dataset(path: str) -> bool:
    """Whether a path is a folder that `datasets` saved a table to, or those of its splits."""
    with refusals(path, "folder"):
        fs, root = filesystem(path)
        names = (f"{root.rstrip('/')}/{name}" for name in (SPLITS, STATE))
        return any(fs.exists(name) for name in names)


def read_as_saved(files: Files) -> dict[str, str | None]:
    """The same files, less those that describe saved tables. Of a folder of a saved table, those
    are read that its state.json names.

    Raises
    ------
    InputError
        If a folder holds the splits of a dataset, or lacks a file that its state.json names.
    """
    folders = {_folder(file) for file in files if file.endswith(ARROW)}
    _refuse_splits(files, folders)
    read = dict(files)
    saved: list[str] = []
    for folder in sorted({*map(_folder, files)}):
        state = f"{folder}/{STATE}"
        can_be = state in files and (folder in folders or f"{folder}/{INFO}" in files)
        if not can_be or any(folder.startswith(f"{other}/") for other in saved):
            continue
        if (names := _named_by(state)) is not None:
            read = _with_named_alone(read, folder, names)
            saved.append(folder)
    described = {f"{folder}/{name}" for folder in (*folders, *saved) for name in (INFO, STATE)}
    return {file: why_not for file, why_not in read.items() if file not in described}


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


def _refuse_splits(files: Files, folders: set[str]) -> None:
    for file in files:
        folder, _, name = file.rpartition("/")
        below = (one for one in folders if one.startswith(f"{folder}/"))
        splits = sorted(one.removeprefix(f"{folder}/") for one in below)
        if name == SPLITS and splits:
            raise InputError(
                f"{folder} holds the splits of a dataset: {listed(splits)}; name one of them, as "
                f"{folder}/{splits[0]}"
            )


def _named_by(state: str) -> list[str] | None:
    """The files of a table in their order; None of a state.json that is not of `datasets`."""
    with refusals(state, ".json"), opened(state) as file:
        said: Any = parse_json(file.read())
    if not isinstance(said, dict) or "_data_files" not in said:
        return None
    try:
        return [str(one["filename"]) for one in said["_data_files"]]
    except (TypeError, KeyError):
        raise InputError(
            f"{state}: _data_files should be a list of objects with a filename each; save the "
            "dataset again with save_to_disk"
        ) from None


def _with_named_alone(files: Files, folder: str, names: Sequence[str]) -> dict[str, str | None]:
    """The same files; of one folder, those that are named are read, in their order."""
    own: dict[str, str | None] = dict.fromkeys(f"{folder}/{name}" for name in names)
    if lost := [name for name in names if f"{folder}/{name}" not in files]:
        raise InputError(
            f"{folder}/{STATE} names {listed(lost)}, and the folder has no such file; save the "
            "dataset again with save_to_disk"
        )
    kept: dict[str, str | None] = {}
    for file, why_not in files.items():
        if not file.startswith(f"{folder}/"):
            kept[file] = why_not
        else:
            kept |= own if file in own else {**own, file: NOT_NAMED}
    return kept
