"""Records as they were read: kept while their block is at hand, and passed on with it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from raymia.models.causal.reading import Reader, Rendered

READ = pa.struct(
    [
        ("ids", pa.list_(pa.int32())),
        ("scored", pa.list_(pa.bool_())),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
)
"""A :class:`raymia.models.causal.reading.Rendered` in a block of records."""

LEFT = 4
"""Blocks after which a text is of none that is at hand, which are fewer."""


class Readings:
    """Reads each record of the blocks at hand once, for all models of a process that read alike.

    It may be asked from several threads at once.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._kept: dict[str, Rendered] = {}
        self._left = deque[set[str]](maxlen=LEFT)
        """What was still kept after each of the last blocks."""
        self._lock = threading.Lock()

    def prepare(self, payloads: Iterable[str]) -> None:
        """Read records ahead of the model that is to be asked about them, and keep them."""
        lacking = [*{payload: None for payload in payloads if payload not in self._kept}]
        self._kept.update(zip(lacking, self._read(lacking), strict=True))

    def read(self, payloads: Sequence[str]) -> list[Rendered]:
        """Records as they are kept; the others are read now, and not kept."""
        kept = [self._kept.get(payload) for payload in payloads]
        pairs = zip(payloads, kept, strict=True)
        lacking = [*{payload: None for payload, one in pairs if one is None}]
        now = dict(zip(lacking, self._read(lacking), strict=True))
        return [now[p] if one is None else one for p, one in zip(payloads, kept, strict=True)]

    def _read(self, payloads: Sequence[str]) -> list[Rendered]:
        with self._lock:
            return self.reader.read(payloads) if payloads else []

    def passed_on(self, payloads: Iterable[str | None]) -> pa.Array:
        """What is kept of payloads, for another process: an array of :data:`READ`."""
        kept = [None if payload is None else self._kept.get(payload) for payload in payloads]
        rows = [None if one is None else vars(one) for one in kept]
        return pa.array(rows, READ)

    def keep(self, payloads: Iterable[str | None], read: pa.Array) -> None:
        """Keep what another process passed on."""
        for payload, row in zip(payloads, read.to_pylist(), strict=True):
            if payload is not None and row is not None:
                scored = None if row["scored"] is None else np.array(row["scored"], np.bool_)
                self._kept[payload] = Rendered(**{**row, "scored": scored})

    def forget(self, payloads: Iterable[str | None]) -> None:
        """Keep a block's payloads no longer: all models have been asked about them. What a question
        prepared that is no block's payload goes some blocks later."""
        for payload in payloads:
            self._kept.pop(payload or "", None)
        self._left.append({*self._kept})
        if len(self._left) == LEFT:
            for payload in set.intersection(*self._left):
                self._kept.pop(payload, None)
