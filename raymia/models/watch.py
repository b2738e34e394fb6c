"""Whether a checkpoint's files are written to while its model is loaded and asked.

They are hashed before the model is loaded, and then read again by its library. Their weights may
even be pages of the files as long as the model lives, since safetensors are mapped into memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from raymia.models.source import FilesToHash, StampedHashes
from raymia.util.errors import InputError, RaymiaError

if TYPE_CHECKING:
    from raymia.models.checkpoint import FileCheckpoint

Unchanged: TypeAlias = Callable[[], None]
"""Raises RaymiaError where files are others than they were."""
Stamp: TypeAlias = tuple[int, int, int] | None
"""Size, when it was written, and when anything of it changed; None for a file that is not there."""


def not_watched() -> None:
    """Of a model that is no files."""


class Watch:
    """The files that are in a checkpoint's fingerprint, as they are when this is made."""

    def __init__(self, checkpoint: FileCheckpoint) -> None:
        self._checkpoint = checkpoint
        found = FilesToHash()
        with suppress(OSError, InputError):  # where one is missing, its loader says so
            checkpoint.take_fingerprint(found)
        self._stamps = {file: _stamp(file) for file in sorted(found.files)}

    def check(self) -> None:
        """Refuse files that are others than they were.

        Raises
        ------
        RaymiaError
            Naming one that was written to.
        """
        now = {file: _stamp(file) for file in self._stamps}
        if now == self._stamps:
            return
        for file, before in self._stamps.items():
            stamp = now[file]
            if stamp is None or before is None or stamp[:2] != before[:2]:
                raise RaymiaError(
                    f"{self._checkpoint.label}: these are no longer the files that the audit was "
                    f"planned with: {file} was written to or removed while the model was loaded "
                    "or asked. What came of it since is not stored. Nothing may write to a "
                    "checkpoint during an audit; run the audit again when nothing does"
                )
        self._checkpoint.check(_HASHES)  # rights, names and links change a file's times, too
        self._stamps = now


def _stamp(file: Path) -> Stamp:
    # Without the inode: on file systems of object stores it changes while the file does not. Where
    # another file is put in its place, the time of any change says so.
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


_HASHES = StampedHashes(_stamp)
"""Of files that many checkpoints share, as adapters do their base's, each state is hashed once."""
