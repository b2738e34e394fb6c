"""Small files of a store that are written once: token counts of a corpus, settings that were tried.

Each ends with a hash of its name and of what is before it. Files of earlier versions end without
one, and are read as they are.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from raymia.evidence.store import EvidenceStore
from raymia.storage.files import Folder
from raymia.util.errors import RaymiaError
from raymia.util.hashing import DIGEST_HEX_CHARS, digest_bytes
from raymia.util.strict_json import parse_json

SEALED_ROOMS = ("corpus", "sweeps")
"""Rooms of a store whose files end with a hash."""
_MARK = b"\nraymia.sha256 "
_SEAL_BYTES = len(_MARK) + DIGEST_HEX_CHARS


def write_sealed(folder: Folder, name: str, content: bytes) -> None:
    """Write a file with what proves later that it is the one that was written."""
    folder.write(name, content + _seal(name, content))


def read_sealed(folder: Folder, name: str) -> tuple[bytes, bool]:
    """Read a file.

    Returns
    -------
    What was written, and whether its hash proves that: an earlier version wrote none.

    Raises
    ------
    RaymiaError
        If it is not what was written under this name.
    """
    whole = folder.read(name)
    content, seal = whole[:-_SEAL_BYTES], whole[-_SEAL_BYTES:]
    if not seal.startswith(_MARK):
        return whole, False
    if seal != _seal(name, content):
        raise damaged(folder, name, "its content is not what its hash says")
    return content, True


def damaged(folder: Folder, name: str, why: object) -> RaymiaError:
    """What is said of a file that is not what was written."""
    return RaymiaError(
        f"{folder.url}/{name}: damaged file ({why}); delete it and run it again: what it held is "
        "made again"
    )


def write_counts(store: EvidenceStore, name: str, counts: npt.NDArray[np.int64]) -> None:
    """Keep how often each token occurs."""
    buffer = io.BytesIO()
    np.save(buffer, counts, allow_pickle=False)
    write_sealed(store.folder, name, buffer.getvalue())


def read_counts(store: EvidenceStore, name: str) -> npt.NDArray[np.int64]:
    """Read how often each token occurs, int64 [vocabulary].

    Raises
    ------
    RaymiaError
        If the file is damaged.
    """
    content, is_proven = read_sealed(store.folder, name)
    buffer = io.BytesIO(content)
    try:
        counts: npt.NDArray[np.int64] = np.lib.format.read_array(buffer, allow_pickle=False)
    except Exception as error:  # a damaged header is parsed as Python, and raises anything
        raise damaged(store.folder, name, str(error) or type(error).__name__) from None
    if counts.dtype != np.int64 or counts.ndim != 1 or counts.min(initial=0) < 0 or buffer.read():
        raise damaged(store.folder, name, "it is no list of counts")
    if not is_proven:
        store.unproven.add(name)
    return counts


def is_sealed(folder: Folder, name: str) -> bool:
    """Whether a hash proves a file; also of one that is damaged, or deleted since."""
    try:
        return read_sealed(folder, name)[1]
    except (OSError, RaymiaError):
        return True


def check_small(store: EvidenceStore, name: str) -> None:
    """Read a file of a store, which is of counts or JSON.

    Raises
    ------
    RaymiaError
        If it is damaged.
    """
    if name.startswith("corpus/"):
        read_counts(store, name)
        return
    content, _ = read_sealed(store.folder, name)
    try:
        parse_json(content)
    except ValueError as error:
        raise damaged(store.folder, name, error) from None


def _seal(name: str, content: bytes) -> bytes:
    return _MARK + digest_bytes(name.encode() + b"\n" + content).encode()
