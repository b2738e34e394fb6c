"""Folders of other machines, or what is chosen of them, downloaded once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from filelock import FileLock

from raymia.storage.moves import TEMPORARY_PREFIX, rename_or_drop
from raymia.storage.remote import StorageError
from raymia.util.errors import InputError, RaymiaError
from raymia.util.hashing import digest

DOWNLOADS = 3
"""How often a file that came in part is asked for."""

Part = Literal["whole", "name", "nothing"]
"""What of a file is downloaded: an empty file stands for one of which the name is."""
Choice = Callable[[str, int | None], Part]
"""Says so of a file by its name below a folder, and its size where that is known."""


@dataclass(frozen=True)
class Origin:
    """Where a local folder was downloaded from, and what of it; None where that is all."""

    url: str
    choice: Choice | None = None


ORIGINS: dict[str, Origin] = {}
"""Where each local folder came from that this process downloaded, or found downloaded."""


def download_folder(fs: Any, path: str, choice: Choice | None = None) -> Path:
    """Download a remote folder, or a choice of its files, once per machine and their state.

    Processes of a machine that want the same folder at the same time wait for the first of them.
    What a killed one leaves behind is never taken for the folder.

    Raises
    ------
    InputError
        If the server lists a file that is not within the folder, or two under one name.
    StorageError
        If there is no room for it.
    """
    listing = [str(name) for name in fs.find(path) if not str(name).endswith("/")]
    within = names_within(listing, path)
    infos = {name: fs.info(name) for name in listing}
    parts: dict[str, Part] = {
        name: "whole" if choice is None else choice(within[name], infos[name].get("size"))
        for name in listing
    }
    whole = [name for name in listing if parts[name] == "whole"]
    others = sorted((within[name], parts[name]) for name in listing if parts[name] != "whole")
    state = {name: [str(fs.ukey(name)), *_versions(infos[name])] for name in whole}
    target = cache_folder() / digest([path, state, others] if others else [path, state])
    target.parent.mkdir(parents=True, exist_ok=True)
    url = str(fs.unstrip_protocol(path))
    ORIGINS[str(target)] = Origin(url, choice)
    if target.exists():
        return target
    with FileLock(f"{target}.lock"):
        if not target.exists():
            _check_room(url, target.parent, sum(infos[name].get("size") or 0 for name in whole))
            staged = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
            try:
                for name in listing:
                    file = staged / within[name]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    if parts[name] == "whole":
                        download_file(fs, name, file)
                    elif parts[name] == "name":
                        file.touch()
                rename_or_drop(staged, target)
            except BaseException:
                shutil.rmtree(staged, ignore_errors=True)
                raise
    return target


def _check_room(url: str, folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StorageError(
            f"{url}: {size / 2**30:.1f} GiB of it are to be downloaded to {folder}, where "
            f"{free / 2**30:.1f} GiB are free; make room there, or set RAYMIA_CACHE to a folder on "
            "a larger disk, on every machine"
        )


def names_within(names: Sequence[str], folder: str) -> dict[str, str]:
    """The names of files below a folder of another machine that lists them, as they may be written
    here: without the empty parts that keys in object storage may have.

    Raises
    ------
    InputError
        If one would lead out of the folder, or is no name of a file, or two would be one file.
    """
    found: dict[str, str] = {}
    for name in names:
        below = _name_within(name, folder)
        if (other := found.setdefault(below, name)) != name:
            raise InputError(
                f"{folder}: lists {other!r} and {name!r}, which would be one file here; remove the "
                "one that is not meant; nothing was downloaded"
            )
    return {name: below for below, name in found.items()}


def _name_within(name: str, folder: str) -> str:
    start = f"{folder.rstrip('/')}/"
    parts = [part for part in name.removeprefix(start).split("/") if part]
    below = str(PurePosixPath(*parts))
    if not name.startswith(start) or "\0" in name or ".." in parts or below == ".":
        raise InputError(
            f"{folder}: lists {name!r}, which is no name of a file in this folder; nothing was "
            "downloaded"
        )
    return below


def _versions(info: Mapping[str, Any]) -> list[str]:
    """What a server says of the state of a file, where its name alone is the key of a download."""
    keys = ("size", "ETag", "Last-Modified", "Content-MD5", "Digest")
    return [str(info[key]) for key in keys if info.get(key) is not None]


def download_file(fs: Any, name: str, file: Path) -> None:
    """Download one file, and again where what came is not the whole of it."""
    size = fs.info(name)["size"]
    for _ in range(DOWNLOADS):
        fs.get_file(name, str(file))
        if size is None or file.stat().st_size == size:
            return
    raise RaymiaError(
        f"{fs.unstrip_protocol(name)}: {file.stat().st_size:,} bytes came of {size:,}, "
        f"{DOWNLOADS} times"
    )


def cache_folder() -> Path:
    """Where downloads are kept: ``$RAYMIA_CACHE``, or raymia's folder in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "raymia"
    return Path(os.environ.get("RAYMIA_CACHE", str(default))).expanduser()
