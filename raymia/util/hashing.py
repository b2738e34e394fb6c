"""Content hashes: what every key in the evidence store is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raymia.util.regular_files import check_is_file

DIGEST_HEX_CHARS = 32
"""128 bits: a collision among 10^12 keys has a probability below 10^-14."""
_HASHED_AT_ONCE = 2**16
_PADDED_BYTES = 2**24
"""What strings take at once, filled up to one length; a single longer one is taken alone."""
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
Hashes = npt.NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)


def digest(value: Any) -> str:
    """Hash a JSON-serializable value; equal values give equal digests whatever their key order."""
    return digest_bytes(_CANONICAL.encode(value).encode())


def digest_lists(pieces: Iterable[Sequence[Any]]) -> str:
    """:func:`digest` of one list that comes in pieces, of which none is empty.

    Examples
    --------
    >>> digest_lists([[1, 2], [3]]) == digest([1, 2, 3])
    True
    """
    content, before = hashlib.sha256(b"["), ""
    for piece in pieces:
        content.update((before + _CANONICAL.encode(piece)[1:-1]).encode())
        before = ","
    content.update(b"]")
    return content.hexdigest()[:DIGEST_HEX_CHARS]


def digest_bytes(content: bytes) -> str:
    """Hash raw bytes, as a record's payload."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_HEX_CHARS]


def digest_file(path: Path) -> str:
    """Hash a file's content without reading it into memory at once."""
    check_is_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_HEX_CHARS]


def rows_alike(hashes: Hashes) -> npt.NDArray[np.int64]:
    """The places of hashes that stand there more than once, ascending.

    Examples
    --------
    >>> rows_alike(np.array([7, 3, 7, 5, 7], np.uint64)).tolist()
    [0, 2, 4]
    """
    again = repeated_hashes(hashes)
    if not again.size:
        return np.empty(0, np.int64)
    found = []
    for start in range(0, len(hashes), _HASHED_AT_ONCE):
        piece = hashes[start : start + _HASHED_AT_ONCE]
        places = np.minimum(np.searchsorted(again, piece), again.size - 1)
        found.append(start + np.flatnonzero(again[places] == piece))
    return np.concatenate(found)


def repeated_hashes(hashes: Hashes) -> Hashes:
    """The hashes that are there more than once, ascending; nine bytes are held for each."""
    ascending = np.sort(hashes)
    again: Hashes = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    return again


def string_hashes(texts: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Hash many strings at once, each by itself; fast, and not against someone who wants a clash.

    Parameters
    ----------
    texts : strings [n], none null.

    Returns
    -------
    uint64 [n]. Two different strings have the same hash with a probability of about 2^-64: who
    must be sure compares the strings of equal hashes. Beside them it takes some 50 MiB, or three
    times the longest string.
    """
    hashes = np.empty(len(texts), np.uint64)
    done = 0
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    for chunk in chunks:
        for start in range(0, len(chunk), _HASHED_AT_ONCE):
            piece = chunk.slice(start, _HASHED_AT_ONCE)
            hashes[done : done + len(piece)] = _hashes_of_piece(piece)
            done += len(piece)
    return hashes


def _hashes_of_piece(texts: pa.Array) -> npt.NDArray[np.uint64]:
    """Hash strings beside others of at most twice their length, so that few bytes are filled up."""
    sizes = pc.binary_length(texts).to_numpy()
    classes = np.frexp(sizes)[1]
    hashes = np.empty(len(texts), np.uint64)
    for kind in np.unique(classes):
        rows = np.flatnonzero(classes == kind)
        count = max(1, _PADDED_BYTES // 2 ** int(kind))
        for start in range(0, len(rows), count):
            some = rows[start : start + count]
            alike = texts if len(some) == len(texts) else texts.take(pa.array(some))
            hashes[some] = _hashes_of_words(*_words(alike))
    return hashes


def _words(texts: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """The bytes of strings as words of eight, filled up with zeros, [n, words]; and their lengths,
    [n]."""
    binary = texts.cast(pa.large_binary())
    _, offset_buffer, data = binary.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[binary.offset : binary.offset + len(texts) + 1]
    lengths = np.diff(offsets)
    width = -(-int(lengths.max()) // 8) * 8
    content = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    if width and lengths.min() == width:
        return content.reshape(-1, width).view("<u8"), lengths
    padded = np.zeros((len(texts), width), np.uint8)
    padded[np.arange(width) < lengths[:, None]] = content
    return padded.view("<u8"), lengths


def _hashes_of_words(
    words: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Take in word after word by multiplying and folding, then mix as splitmix64 ends (Steele, Lea
    and Flood 2014); words beyond a string's own leave its hash as it is."""
    hashes, shortest = lengths.astype(np.uint64) * _ODD, int(lengths.min())
    for column in range(words.shape[1]):
        taken = (hashes ^ words[:, column]) * _ODD
        taken ^= taken >> np.uint64(32)
        hashes = taken if shortest > 8 * column else np.where(lengths > 8 * column, taken, hashes)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))
