"""Filesystems of other machines, asked again where they fail; any fsspec URL becomes one here."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raymia.util.errors import RaymiaError

TRIES = 5
FIRST_PAUSE_SECONDS = 0.25
"""Doubled each time, and drawn between half of it and the whole."""
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}
S3_OPTIONS = {"config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 10}}
"""s3fs asks again by itself; were botocore to as well, a store that is down would take minutes."""
FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Answers, not failures."""
WRITES = frozenset({"pipe_file", "put_file"})
LOOKS = frozenset({"exists", "isdir", "info", "ukey", "find", "glob", "ls"})
CALLS = WRITES | LOOKS | frozenset({"cat_file", "get_file", "rm_file", "rm"})
NETWORK = (
    "botocore", "aiobotocore", "aiohttp", "requests", "urllib3", "google", "azure", "gcsfs",
    "httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub",
)  # fmt: skip
"""Packages whose errors are of the network, or of a server, and not all OSErrors."""


class StorageError(RaymiaError):
    """A filesystem failed for good; names the URL."""


class Remote:
    """A filesystem of fsspec whose calls are made again after failures of network and server.

    A call is made `TRIES` times at most, with growing pauses; then, and at once where access is
    denied, it is a :class:`StorageError`. Every call may be repeated: a file is written whole.

    Parameters
    ----------
    url, root : a URL as it was given, and the path on the filesystem that it means; by them other
        paths become URLs of the same host and user, which a filesystem may not say itself.
    """

    def __init__(self, fs: Any, url: str, root: str) -> None:
        self.fs = fs
        self._of_url, self._of_root = _beginnings(url, root)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.fs, name)
        return self._again(name, found) if name in CALLS else found

    def unstrip_protocol(self, path: str) -> str:
        """A path as a URL that means it; begun as the one that was given, where both lie there."""
        parts, count = path.split("/"), len(self._of_root)
        if "://" in path or not self._of_url or parts[:count] != self._of_root:
            return str(self.fs.unstrip_protocol(path))
        return "/".join([*self._of_url, *parts[count:]])

    def create_file(self, path: str, content: bytes) -> bool:
        """Write a file of a content that nobody else writes where there is none; whether this did.
        Never where the filesystem knows no such writing; one that passes the condition over and
        writes all the same is found out by nobody, but what was there before is never replaced."""
        if self.exists(path):
            return False
        try:
            self._again("pipe_file", self.fs.pipe_file)(path, content, mode="create")
        except FileExistsError:  # perhaps by a call whose answer was lost
            return bool(self.cat_file(path) == content)
        except (StorageError, NotImplementedError, TypeError, ValueError):
            return False
        return True

    def _again(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def again(*arguments: Any, **options: Any) -> Any:
            path, tries = str(arguments[name == "put_file"]), 0
            while True:
                try:
                    return call(*arguments, **options)
                except FINAL as error:
                    is_there = isinstance(error, FileExistsError) and "mode" in options
                    if is_there or name not in WRITES:
                        raise
                    raise self._error(path, "there is no such bucket or folder", error) from None
                except Exception as error:
                    tries += 1
                    if not is_of_the_network(error):
                        raise
                    if _is_denied(error):
                        raise self._error(path, "access is denied", error) from None
                    if tries == TRIES:
                        why = f"failed {TRIES} times ({name})"
                        raise self._error(path, why, error) from None
                    pause = FIRST_PAUSE_SECONDS * 2 ** (tries - 1)
                    time.sleep(pause * random.uniform(0.5, 1))  # so that workers do not go in step

        return again

    def _error(self, path: str, why: str, error: Exception) -> StorageError:
        url = self.unstrip_protocol(path)
        said = str(error).replace(path, url)  # a path without its scheme hides no credentials
        return StorageError(f"{url}: {why}: {type(error).__name__}: {said}")


def _beginnings(url: str, root: str) -> tuple[list[str], list[str]]:
    """What a URL and the path that it means have before the names that end both, part by part; an
    empty URL where they end otherwise.

    >>> _beginnings("sftp://me@host/data/a.jsonl", "/data/a.jsonl")
    (['sftp:', '', 'me@host'], [''])
    """
    if not root:  # of the whole filesystem, whose paths begin with a slash
        return url.removesuffix("/").split("/"), [""]
    given = url if root.endswith("/") else url.rstrip("/")
    of_url, of_root = given.split("/"), root.split("/")
    same = 0
    for one, other in zip(reversed(of_url), reversed(of_root), strict=False):
        if one != other:
            break
        same += 1
    if not same or "::" in url:  # a chain of filesystems ends in another's path
        return [], of_root
    return of_url[:-same], of_root[:-same]


class RemoteFile(io.RawIOBase):
    """A file of another machine, read from any place, each piece with a call of its own."""

    def __init__(self, fs: Remote, path: str) -> None:
        super().__init__()
        self._fs, self._path = fs, path
        self._size, self._at = int(fs.info(path)["size"]), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._at + len(buffer))
        if end <= self._at:
            return 0
        content = self._fs.cat_file(self._path, start=self._at, end=end)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a local path or fsspec URL, and the path on it."""
    if "://" not in url:  # `::` and `?` are letters of a local name
        return LocalFileSystem(), str(LocalFileSystem._strip_protocol(url))
    protocol, _ = fsspec.core.split_protocol(url)
    options: dict[str, Any] = {}
    if protocol in OBJECT_STORES:
        options["use_listings_cache"] = False  # other machines write too
    if protocol in ("s3", "s3a"):
        options |= S3_OPTIONS
    fs, path = fsspec.core.url_to_fs(url, **options)
    return (fs if isinstance(fs, LocalFileSystem) else Remote(fs, url, path)), path


def is_of_the_network(error: Exception) -> bool:
    """Whether an error is one of network or server, or of a file there."""
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in NETWORK


def _is_denied(error: Exception) -> bool:
    return isinstance(error, PermissionError) or "Credentials" in type(error).__name__
