"""N-grams of many texts at once, as 64-bit hashes; nothing here is fitted."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

# Scripts without spaces between words are taken sign by sign.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[{_SIGNS}]|[^\\W{_SIGNS}]+")

# Finalizer constants of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_AT_ONCE = 2**20
"""N-grams that are put together at once."""


@dataclass(frozen=True)
class Units:
    """The words, or the characters, of many texts in a row.

    Attributes
    ----------
    codes : [units], one number for each; equal ones are equal.
    offsets : int64 [texts + 1]; text i owns ``offsets[i]:offsets[i + 1]``.
    """

    codes: Hashes
    offsets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of many texts in a row.

    Attributes
    ----------
    hashes : [n-grams].
    owners : int64 [n-grams], the text each stands in; rising.
    texts : how many texts there are.
    """

    hashes: Hashes
    owners: npt.NDArray[np.int64]
    texts: int

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """N-grams of each text, repetitions included, [texts]."""
        return np.bincount(self.owners, minlength=self.texts)


def words(texts: Sequence[str]) -> Units:
    """Words in lower case, without what stands between them."""
    codes = [np.array([*map(_code, _WORD.findall(text.lower()))], np.uint64) for text in texts]
    together = np.concatenate(codes) if codes else np.zeros(0, np.uint64)
    return Units(together, _offsets([len(own) for own in codes]))


def characters(texts: Sequence[str]) -> Units:
    """Characters as they are."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    return Units(codes, _offsets([len(text) for text in texts]))


def ngrams(units: Units, n: int) -> Ngrams:
    """Every run of ``n`` units within one text; a text with fewer has none."""
    texts, hashes = len(units.offsets) - 1, []
    for start in range(0, len(units.codes), _AT_ONCE):
        codes = units.codes[start : start + _AT_ONCE + n - 1]
        found = np.zeros(max(0, len(codes) - n + 1), np.uint64)
        for place in range(n):
            found = _mix(found + _STEP + codes[place : place + len(found)])
        begins = np.arange(start, start + len(found))
        ends = units.offsets[np.searchsorted(units.offsets, begins, "right")]
        hashes.append(found[begins + n <= ends])
    counts = np.maximum(np.diff(units.offsets) - n + 1, 0)
    together = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    return Ngrams(together, np.repeat(np.arange(texts), counts), texts)


def count_matrix(grams: Ngrams, columns: int) -> Any:
    """How often each n-gram stands in each text: float32 CSR [texts, columns], hashed."""
    from scipy import sparse

    places = (grams.hashes % np.uint64(columns)).astype(np.int64)
    ones = np.ones(len(places), np.float32)
    return sparse.csr_matrix((ones, (grams.owners, places)), shape=(grams.texts, columns))


def _mix(values: Hashes) -> Hashes:
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=2**16)
def _code(word: str) -> int:
    return zlib.crc32(word.encode())


def _offsets(lengths: list[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
