"""The files of members and of held-out records of a target that is trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raymia.storage.files import Folder
from raymia.util.errors import InputError


def write_split(out: Path, contents: Mapping[str, bytes], what: str) -> None:
    """Write the files of a split by their names, unless a folder holds those of another.

    Parameters
    ----------
    what : is in them, in the plural.

    Raises
    ------
    InputError
        Naming the file that holds others.
    """
    for name, content in contents.items():
        if (out / name).is_file() and (out / name).read_bytes() != content:
            raise InputError(
                f"{out / name} holds other {what} than these settings draw; name another folder, "
                "or remove this one if nothing in it is your own"
            )
    for name, content in contents.items():
        Folder(str(out)).write(name, content)
