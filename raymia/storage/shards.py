"""The files that a path means: itself, those of a folder, or those that a pattern matches."""

from __future__ import annotations

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
    looks_like_one : what its name says; a URL is not asked where that is enough.
    """
    if "://" in path:
        return looks_like_one and not is_pattern(path) and not path.endswith("/")
    local = Path(path).expanduser()
    return not local.is_dir() and (os.path.lexists(local) or not is_pattern(path))


def is_pattern(path: str) -> bool:
    """Whether a path has signs that stand for others; a local file of that very name comes
    first."""
    return bool((_PATTERN_OF_URL if "://" in path else _PATTERN).search(path))


def files_of(path: str) -> tuple[bool, list[str]]:
    """Whether a path is a folder, and the files it means, sorted by name; none where it is
    nothing.

    Of a folder, those whose name or folder begins with ``.`` or ``_`` are passed over.
    """
    fs, root = filesystem(path)
    if not fs.isdir(root):
        return False, [found for found in matches(path) if not fs.isdir(found)]
    hidden = re.compile(r"(^|/)[._]")
    below = (name for name in walk(fs, root) if not hidden.search(_tail(name, root)))
    return True, _named(fs, path, below)


def matches(path: str) -> list[str]:
    """The files and folders that a path means, or that a pattern matches, sorted by name.

    As in a shell, names that begin with ``.`` are matched by no sign that stands for others.
    """
    fs, root = filesystem(path)
    if is_pattern(path) and not fs.exists(root):
        dots = _dots(root)
        return _named(fs, path, (f for f in map(str, fs.glob(root)) if _dots(f) <= dots))
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


def _dots(path: str) -> int:
    """How many of a path's names begin with ``.``."""
    return sum(part.startswith(".") for part in path.split("/"))


def _tail(name: str, root: str) -> str:
    return name.removeprefix(root.rstrip("/")).lstrip("/")


def _named(fs: Any, path: str, files: Iterable[str]) -> list[str]:
    return sorted(str(fs.unstrip_protocol(f)) if "://" in path else f for f in files)
