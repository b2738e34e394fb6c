"""The files that a path means: itself, those of a folder, or those that a pattern matches."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from raymia.storage.remote import filesystem

_PATTERN = re.compile(r"[*?\[]")
_PATTERN_OF_URL = re.compile(r"[*\[]")
"""A ``?`` begins the query of a URL."""


def is_one_file(path: str, looks_like_one: bool) -> bool:
    """Whether a path is meant as the file of that name, be it there or not.

    Parameters
    ----------
    looks_like_one : what its name says. Of a URL that decides, unless a folder is called so.
    """
    if "://" in path:
        could_be = looks_like_one and not is_pattern(path) and not path.endswith("/")
        return could_be and not _is_folder(path)
    local = Path(path).expanduser()
    return not local.is_dir() and (os.path.lexists(local) or not is_pattern(path))


def _is_folder(url: str) -> bool:
    """Whether a URL is a folder's; cheaper than `isdir`, by which a web server sends a whole
    file."""
    fs, path = filesystem(url)
    try:
        return bool(fs.info(path).get("type") == "directory")
    except FileNotFoundError:  # whoever opens it says so
        return False


def is_pattern(path: str) -> bool:
    """Whether a path has signs that stand for others; a local file of that very name comes
    first."""
    return bool((_PATTERN_OF_URL if "://" in path else _PATTERN).search(path))


def files_of(path: str) -> dict[str, bool]:
    """The files that a path means, sorted by name, each with whether it is one of a folder's; none
    where the path is nothing.

    A folder that a pattern matches is read as one that is named, unless its name begins with ``_``
    and the pattern does not write that. Of a folder, files whose name or folder begins with ``.``
    or ``_`` are passed over.
    """
    fs, root = filesystem(path)
    if fs.isdir(root):
        return dict.fromkeys(_below(path), True)
    found: dict[str, bool] = {}
    for match in matches(path):  # a folder comes before what is in it and matched as well
        if not fs.isdir(match):
            found[match] = False
        elif not _begins_low(match) or _begins_low(path):
            found |= dict.fromkeys(_below(match), True)
    return dict(sorted(found.items()))


def matches(path: str) -> list[str]:
    """The files and folders that a path means, or that a pattern matches, sorted by name.

    As in a shell, names that begin with ``.`` are matched by no sign that stands for others. Signs
    in the name of a local folder that is there are letters.
    """
    fs, root = filesystem(path)
    if is_pattern(path) and not fs.exists(root):
        dots, found = _dots(root), map(str, fs.glob(_with_letters(fs, root)))
        return _named(fs, path, (name for name in found if _dots(name) <= dots))
    return [path] if fs.exists(root) else []


def walk(fs: Any, root: str) -> Iterator[str]:
    """All files under a folder, or the file itself; links are followed, in circles too."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.find(root)
        return
    if not Path(root).is_dir():
        yield from [root] if Path(root).exists() else []
        return

    def stop(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True, onerror=stop):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (f"{folder.rstrip('/')}/{name}" for name in files)


def _below(folder: str) -> list[str]:
    """The files of a folder that are not hidden, sorted by name."""
    fs, root = filesystem(folder)
    hidden = re.compile(r"(^|/)[._]")
    return _named(fs, folder, (n for n in walk(fs, root) if not hidden.search(_tail(n, root))))


def _with_letters(fs: Any, pattern: str) -> str:
    """A pattern in which what is the name of a folder stands for itself, as in ``run[1]/*``."""
    if not isinstance(fs, LocalFileSystem):
        return pattern
    folder = pattern
    while folder and not os.path.isdir(folder):  # noqa: PTH112 - a path may be too long to ask
        folder = folder.rpartition("/")[0]
    return glob.escape(folder) + pattern.removeprefix(folder)


def _begins_low(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].startswith("_")


def _dots(path: str) -> int:
    """How many of a path's names begin with ``.``."""
    return sum(part.startswith(".") for part in path.split("/"))


def _tail(name: str, root: str) -> str:
    return name.removeprefix(root.rstrip("/")).lstrip("/")


def _named(fs: Any, path: str, files: Iterable[str]) -> list[str]:
    return sorted(str(fs.unstrip_protocol(f)) if "://" in path else f for f in files)
