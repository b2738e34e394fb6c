"""Hashes of what a setting's result depends on: the evidence an attack reads, and the code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from raymia.evidence.answers import AnswersByQuestion
from raymia.evidence.image import LazyImages
from raymia.util.hashing import DIGEST_HEX_CHARS, digest

SCORING_CODE = ("attacks", "evidence", "metrics", "sweep")


class EvidenceHasher:
    """Hashes evidence by its content; what several attacks share is hashed once."""

    def __init__(self) -> None:
        # The value is kept beside its hash, so that no other can take its id.
        self._known: dict[tuple[int, frozenset[str]], tuple[Any, bytes]] = {}

    def digest(self, evidence: Any, asks: Iterable[str]) -> str:
        """Hash what an attack may look at.

        Parameters
        ----------
        evidence : as the attack is given it.
        asks : questions that count; answers to others do not.
        """
        return self._hash(evidence, frozenset(asks)).hex()[:DIGEST_HEX_CHARS]

    def _hash(self, value: Any, asks: frozenset[str]) -> bytes:
        if isinstance(value, LazyImages):
            value = value.array
        if not isinstance(value, np.ndarray) and type(value) not in (list, tuple):
            return self._content(value, asks)
        place = (id(value), frozenset() if isinstance(value, np.ndarray) else asks)
        if place not in self._known:
            self._known[place] = value, self._content(value, asks)
        return self._known[place][1]

    def _content(self, value: Any, asks: frozenset[str]) -> bytes:
        """SHA-256 of a value's type and parts."""
        hashed = hashlib.sha256(type(value).__name__.encode())
        if value is None or isinstance(value, bool | int | float | str | bytes):
            hashed.update(repr(value).encode())
        elif isinstance(value, np.ndarray):
            hashed.update(f"{value.dtype.str}{value.shape}".encode())
            hashed.update(np.ascontiguousarray(value).data)
        elif isinstance(value, AnswersByQuestion):
            for name, answer in value.read_by(asks).items():
                hashed.update(name.encode())
                hashed.update(self._hash(answer, asks))
        elif is_dataclass(value):
            for field in fields(value):
                if field.compare:
                    hashed.update(field.name.encode())
                    hashed.update(self._hash(getattr(value, field.name), asks))
        elif isinstance(value, Mapping):
            for key in sorted(value):
                hashed.update(self._hash(key, asks) + self._hash(value[key], asks))
        elif isinstance(value, Sequence):
            for item in value:
                hashed.update(self._hash(item, asks))
        else:
            raise TypeError(f"evidence holds a {type(value).__name__}, which has no hash")
        return hashed.digest()


@cache
def code_digest() -> str:
    """Hash the code that turns evidence into scores and metrics: a result of other code is not
    taken for one of this."""
    root = Path(__file__).parents[1]
    files = [file for room in SCORING_CODE for file in sorted((root / room).rglob("*.py"))]
    return digest({str(f.relative_to(root)): digest(f.read_text(encoding="utf-8")) for f in files})
