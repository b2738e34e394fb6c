"""What goes wrong while a file is opened or read, in one sentence: one place for all kinds."""

from __future__ import annotations

import csv
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from raymia.storage.remote import is_of_the_network
from raymia.util.errors import InputError, RaymiaError

DAMAGED = (pa.ArrowException, EOFError, csv.Error, tarfile.TarError, zlib.error, lzma.LZMAError)
UNREADABLE = (
    OSError,
    ImportError,  # a filesystem whose package is not there
    ValueError,  # a NUL in a path, a scheme that nobody knows, a number of 5,000 digits
    RuntimeError,  # links in a circle, and what a filesystem cannot do
    OverflowError,
)
"""Errors of what was given, and not of the code that reads it."""


@contextmanager
def refusals(path: object, kind: str, where: str = "") -> Iterator[None]:
    """Turn what goes wrong while a path is opened or read into an InputError that names it.

    Parameters
    ----------
    kind : of the file, as ".csv".
    where : the key of the audit file, which then stands before the path.
    """
    try:
        yield
    except Exception as error:
        said = sentence(error, kind)
        if said is None:
            raise
        named = f"{where}: {path}" if where else f"{path}"
        if isinstance(error, FileNotFoundError) and not where and "://" not in named:
            said += "; relative paths start at the audit file's folder"
        raise InputError(f"{named}: {said}") from None


def sentence(error: Exception, kind: str) -> str | None:
    """What an error says of a file; None for one that is not of what was given.

    Parameters
    ----------
    kind : what the file should be.
    """
    if isinstance(error, RaymiaError):
        return None
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text ({error}); save it as UTF-8"
    if isinstance(error, RecursionError):
        return "nested too deeply to be read"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, MemoryError):
        return f"a damaged {kind} file, or one that is read at once and does not fit into memory"
    if isinstance(error, DAMAGED):
        return f"not a readable {kind} file, or cut off: {error}"
    if isinstance(error, UNREADABLE) or is_of_the_network(error):
        words = error.strerror if isinstance(error, OSError) and error.strerror else error
        return f"cannot be opened: {words or type(error).__name__}"
    return None
