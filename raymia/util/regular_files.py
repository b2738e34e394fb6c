"""Files that can be read to their end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


def check_is_file(path: str | Path) -> None:
    """Refuse what is there and no file: a folder, or a pipe or device, which would be read for
    ever.

    Raises
    ------
    OSError
        Saying what it is; or as for every file that cannot be looked at.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        what = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise OSError(0, f"it is {what}, and a file is expected", os.fspath(path))
