"""Folders for what is needed for a while, which do not outlive their process for long."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "raymia-scratch-"
LOCK = ".lock"


@contextmanager
def scratch() -> Iterator[Path]:
    """A new folder below the machine's folder for temporary files, removed at the end of the block.

    What killed processes left there is removed on the way: whoever uses a folder holds a lock on a
    file beside it, and the lock of a killed process is free.
    """
    place = Path(tempfile.gettempdir())
    for lock in place.glob(f"{PREFIX}*{LOCK}"):
        _remove_if_left(lock)
    lock = place / f"{PREFIX}{uuid.uuid4().hex}{LOCK}"
    with _held(lock):
        folder = lock.with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a new lock. One that another process removed before it was held is made again."""
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if lock.stat().st_ino == os.fstat(handle).st_ino:
                    yield
                    return
        finally:
            os.close(handle)


def _remove_if_left(lock: Path) -> None:
    try:
        handle = os.open(lock, os.O_RDWR)
    except OSError:  # gone, or another user's
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
    except OSError:  # its process lives
        return
    finally:
        os.close(handle)
