"""What goes wrong while a file is opened or read, in one sentence: one place for all kinds."""

from __future__ import annotations

import csv
import lzma
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from raymia.storage.remote import is_of_the_network
from raymia.util.errors import InputError

UNREADABLE = (
    OSError,
    ImportError,  # a filesystem whose package is not there
    ValueError,  # a NUL in a path, a scheme that nobody knows, a number of 5,000 digits
    RuntimeError,  # links in a circle, and what a filesystem cannot do
    OverflowError,
    EOFError,
    csv.Error,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
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
    named = f"{where}: {path}" if where else f"{path}"
    try:
        yield
    except FileNotFoundError:
        relative = not where and "://" not in str(path)
        hint = "; relative paths start at the audit file's folder" if relative else ""
        raise InputError(f"{named}: no such file{hint}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{named}: not UTF-8 text ({error}); save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{named}: nested too deeply to be read") from None
    except (pa.ArrowException, EOFError, csv.Error, tarfile.TarError, zlib.error,
            lzma.LZMAError) as error:  # fmt: skip
        raise InputError(f"{named}: not a readable {kind} file, or cut off: {error}") from None
    except Exception as error:
        if not isinstance(error, UNREADABLE) and not is_of_the_network(error):
            raise
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{named}: cannot be opened: {said}") from None


def check_is_file(path: str | Path) -> None:
    """Refuse what is there and no file: a folder, or a pipe or device, which would be read for
    ever.

    Raises
    ------
    OSError
        Saying what it is.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a named pipe",
            stat.S_IFSOCK: "a socket",
        }
        what = kinds.get(stat.S_IFMT(mode), "a device")
        raise OSError(0, f"it is {what}, and a file is expected", str(path))
