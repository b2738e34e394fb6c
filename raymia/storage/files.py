"""Files on any fsspec filesystem, never seen half-written."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

from raymia.storage.downloads import download_file, download_folder
from raymia.storage.moves import TEMPORARY_PREFIX, rename_or_drop
from raymia.storage.refusals import refusals
from raymia.storage.remote import RemoteFile, StorageError, filesystem
from raymia.util.errors import InputError, RaymiaError
from raymia.util.regular_files import check_is_file

READ_BYTES = 2**20
"""What is asked of another machine at a time."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a folder: its name below the folder, its size, and when it was last written."""

    name: str
    size: int
    modified: datetime


class Folder:
    """A folder under any fsspec URL, with atomic writes.

    Parameters
    ----------
    url : a local path or an fsspec URL (``s3://bucket/folder``, ``memory://x``).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with refusals(url, "folder"):
            if "\0" in url:
                raise ValueError("a NUL is in no name of a file")
            self.fs, self.root = filesystem(url)
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def place(self, name: str) -> str:
        """A file as a person would name it: with its scheme, by which credentials are known."""
        return self.path(name) if self.is_local else f"{self.url.rstrip('/')}/{name}"

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that it is seen whole or not at all."""
        if not self.is_local:  # an object appears only once its upload is complete
            self.fs.pipe_file(self.path(name), content)
            return
        with self.writing(name) as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file that is seen whole when the block ends, and not at all if the block fails.

        What is written for another machine is on this one's disk until then.
        """
        if not self.is_local:
            with tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX) as file:
                yield file
                file.flush()
                self.fs.put_file(file.name, self.path(name))
            return
        path = Path(self.path(name))
        temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException as error:
            with suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError) and _is_of(path, temporary, error):
                raise _not_written(path, error) from error
            raise

    def create(self, name: str, content: bytes, mode: int = 0o666) -> bool:
        """Write a file where there is none; of those who try at one moment, one does.

        Parameters
        ----------
        mode : who may read it, from its first byte on, less what the process's umask takes away; on
            this machine alone.

        Returns
        -------
        Whether this one did. Never on a disk without hard links, nor on another machine that knows
        no such writing; object stores do, by a condition on the request.
        """
        if not self.is_local:
            return bool(self.fs.create_file(self.path(name), content))
        path = Path(self.path(name))
        temporary = path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(made, "wb") as file:
                file.write(content)
            os.link(temporary, path)
        except OSError:
            return False
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def try_writing(self) -> None:
        """Write a file and remove it; raises as both do."""
        name = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        self.write(name, b"x")
        self.remove(name)

    def open(self, name: str) -> IO[bytes]:
        """See :func:`open_anywhere`."""
        return open_anywhere(self.fs, self.path(name))

    def remove(self, name: str) -> None:
        self.fs.rm_file(self.path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a subfolder with all that is in it; nothing happens where there is none."""
        if self.exists(name):
            self.fs.rm(self.path(name), recursive=True)

    def read(self, name: str) -> bytes:
        if self.is_local:
            check_is_file(self.path(name))
        content: bytes = self.fs.cat_file(self.path(name))
        return content

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def names(self, folder: str, suffix: str) -> list[str]:
        """Names of the complete files in a subfolder, sorted; empty where there is none."""
        place = self.path(folder)
        with refusals(self.place(folder), "folder"):
            try:
                # The listing must be fresh: other workers write to the same store.
                self.fs.invalidate_cache(place)
                entries: list[Any] = self.fs.ls(place, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        names = (str(entry).rsplit("/", 1)[-1] for entry in entries)
        return sorted(n for n in names if n.endswith(suffix) and not n.startswith("."))

    def entries(self, folder: str) -> list[FileEntry]:
        """All files below a subfolder, incomplete ones too, sorted by name."""
        root = self.path(folder).rstrip("/")
        with refusals(self.place(folder), "folder"):
            self.fs.invalidate_cache()
            found = self.fs.find(root, detail=True)
        start = self.path("")
        return [
            FileEntry(str(path).removeprefix(start), int(info["size"] or 0), _modified(info))
            for path, info in sorted(found.items())
        ]

    def clock(self) -> datetime:
        """The time by the clock that files here are dated by, which may be another machine's; this
        machine's where nothing can be written."""
        name = f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        try:
            self.write(name, b"")
            return _modified(self.fs.info(self.path(name)))
        except (OSError, RaymiaError):
            return datetime.now(UTC)
        finally:
            with suppress(OSError, RaymiaError):
                self.remove(name)

    def commit_folder(self, source: Path, name: str, marker: str) -> None:
        """Move a finished local folder into place, where none is; the file ``marker`` proves it
        complete."""
        if not (source / marker).is_file():
            raise ValueError(f"{source} has no {marker}, so it is not a finished folder")
        if self.is_local:
            final = Path(self.path(name))
            staged = final.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
            try:
                final.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, staged)
                rename_or_drop(staged, final, marker)
            except OSError as error:
                shutil.rmtree(staged, ignore_errors=True)
                raise _not_written(final, error) from error
            return
        files = sorted(p for p in source.rglob("*") if p.is_file() and p.name != marker)
        for file in [*files, source / marker]:
            if self.exists(f"{name}/{marker}"):
                return  # who was first may be used by others already
            self.fs.put_file(str(file), self.path(f"{name}/{file.relative_to(source)}"))

    def local_copy(self, name: str) -> Path:
        """Return a local path to a folder: the folder itself, or a copy downloaded once."""
        if self.is_local:
            return Path(self.path(name))
        return download_folder(self.fs, self.path(name))


def check_can_open(url: str, where: str) -> None:
    """Refuse what can be no folder, as far as that is seen without writing.

    Raises
    ------
    InputError
        Naming the key, and what is in the way.
    """
    there = _nearest(url, where)
    if there is not None and not there.is_dir():
        raise InputError(f"{where}: {url} cannot be a folder, because {there} is a file")


def check_can_write(url: str, where: str) -> None:
    """Refuse a folder that cannot be written to, as far as that is seen without writing.

    Raises
    ------
    InputError
        As :func:`check_can_open`, and where there is no permission.
    """
    check_can_open(url, where)
    there = _nearest(url, where)
    if there is not None and not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{where}: {url} cannot be written to: no permission to write in {there}")


def can_write(url: str) -> bool:
    """Whether a folder can be written to; of another machine's that is tried."""
    try:
        check_can_write(url, "")
        folder = Folder(url)
        if not folder.is_local:
            folder.try_writing()
    except (OSError, RaymiaError):
        return False
    return True


def _nearest(url: str, where: str) -> Path | None:
    """The folder itself, or the nearest above it that is there; None for another machine's."""
    try:
        folder = Folder(url)
    except InputError as error:
        raise InputError(f"{where}: {problem}" for problem in error.problems) from None
    if not folder.is_local:
        return None
    path = Path(folder.root)
    with refusals(url, "folder", where):
        there = next(parent for parent in (path, *path.parents) if os.path.lexists(parent))
        if not there.exists():
            raise InputError(
                f"{where}: {url} cannot be a folder, because {there} is a link to what is not there"
            )
        return there


def _is_of(path: Path, temporary: Path, error: OSError) -> bool:
    """Whether an error is that of writing a file, and not of what the writer reads meanwhile."""
    named = error.filename  # none where a file object is written to
    return named is None or Path(os.fsdecode(named)) in (temporary, path, *path.parents)


def _not_written(path: Path, error: OSError) -> StorageError:
    """What is said where a disk is full, read-only, or gone."""
    why = error.strerror or str(error)
    return StorageError(f"{path}: cannot be written: {why}; mend that and run it again to go on")


def _modified(info: Any) -> datetime:
    """When a file was last written, under the name that its filesystem has for that."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
    return datetime.now(UTC)  # not known: as if it were being written


@contextmanager
def opened(url: str) -> Iterator[IO[bytes]]:
    """Open a file for reading; one of another machine is downloaded whole first, to a temporary
    place, so that a connection that breaks midway costs a repetition and not the run."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        with open_anywhere(fs, path) as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder:
        copy = Path(folder, "file")
        download_file(fs, path, copy)
        with copy.open("rb") as file:
            yield file


def open_anywhere(fs: Any, path: str) -> IO[bytes]:
    """Open a file for reading at any place; nothing is read before it is asked for."""
    if not isinstance(fs, LocalFileSystem):
        return io.BufferedReader(RemoteFile(fs, path), READ_BYTES)
    check_is_file(path)
    return Path(path).open("rb")
