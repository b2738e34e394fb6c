"""What a target writes or generates, in parts: each is kept as soon as it is there, so that several
workers write at the same time, and one that is killed loses a part."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from raymia.evidence.store import PREPARED_MARKER, EvidenceStore
from raymia.models.watch import Unchanged, not_watched
from raymia.storage.scratch import scratch
from raymia.util.errors import RaymiaError
from raymia.util.hashing import digest

if TYPE_CHECKING:  # which loads torch
    from raymia.prepare.trainer import Progress

MAX_PARTS = 16
"""Of one thing; each is a folder of the store until all are there."""
PART_FILE = "part.parquet"

Batch: TypeAlias = Sequence[int]
"""Numbers of what is written side by side."""
Write: TypeAlias = "Callable[[Sequence[Batch], Callable[[int], None]], pa.Table]"
"""From batches, and what is told how many rows are done, to a row for each of their numbers."""


class PartsMissing(Exception):  # noqa: N818 - it is no error: others are still writing
    """Parts that other workers write are not there yet."""


@dataclass(frozen=True)
class Share:
    """The parts that a worker writes: each ``of``-th, from part ``number`` on."""

    number: int = 0
    of: int = 1


class Parts:
    """What is written under one key, by one worker or by several.

    Parameters
    ----------
    key : of what all parts make together.
    store : keeps them; without one, nothing is kept.
    share : that this worker writes.

    Attributes
    ----------
    unchanged : asked before a part is kept, whether the files of what writes it still are.
    seconds : that all parts took which were asked for here, whoever wrote them.
    """

    def __init__(
        self, key: str = "", store: EvidenceStore | None = None, share: Share | None = None
    ) -> None:
        self.key, self.store, self.share = key, store, share or Share()
        self.unchanged: Unchanged = not_watched
        self.seconds = 0.0

    def written(
        self,
        what: str,
        batches: Sequence[Batch],
        write: Write,
        progress: Progress,
        asked: str = "",
    ) -> pa.Table:
        """A row for each number, in the order of the batches.

        Parameters
        ----------
        what : is written, where one key has several things.
        asked : hash of what it is a function of beside the key, as the questions that are answered.
            A part that is there and was made of another is written again.

        Raises
        ------
        PartsMissing
            If this worker's are all there, and another's are not.
        """
        parts = _parts_of(batches)
        own = range(self.share.number, len(parts), self.share.of)
        rows = sum(len(batch) for number in own for batch in parts[number])
        done, tables = 0, dict[int, pa.Table]()

        def tell(count: int) -> None:
            progress(done + count, rows)

        for number in own:
            key = part_key(self.key, what, number)
            kept = self._kept(key, asked)
            if kept is None:
                kept = self._write(key, write, parts[number], tell, asked)
            else:
                tell(kept.num_rows)
            tables[number] = kept
            done += kept.num_rows
        for number in range(len(parts)):
            if number not in tables:
                kept = self._kept(part_key(self.key, what, number), asked)
                if kept is None:
                    raise PartsMissing
                tables[number] = kept
        return pa.concat_tables([tables[number] for number in range(len(parts))])

    def _kept(self, key: str, asked: str) -> pa.Table | None:
        if self.store is None:
            return None
        facts = self.store.prepared_facts(key)
        if facts is None or facts.get("asked", "") != asked:
            return None
        try:
            table = pq.read_table(self.store.prepared_path(key) / PART_FILE)
        except (OSError, RaymiaError):
            if self.store.prepared_facts(key) is None:  # a run beside this one has the whole
                return None
            raise
        self.seconds += facts["seconds"]
        return table

    def _write(
        self,
        key: str,
        write: Write,
        batches: Sequence[Batch],
        tell: Callable[[int], None],
        asked: str,
    ) -> pa.Table:
        started = time.monotonic()
        table = write(batches, tell)
        self.unchanged()
        facts: dict[str, Any] = {"seconds": time.monotonic() - started, "asked": asked}
        kept = None if self.store is None else self._committed(self.store, key, table, facts)
        if kept is not None:
            return kept
        self.seconds += facts["seconds"]
        return table

    def _committed(
        self, store: EvidenceStore, key: str, table: pa.Table, facts: dict[str, Any]
    ) -> pa.Table | None:
        """What the store has under the key then: a run beside this one may have been first, and
        texts need not be the same twice."""
        before = store.prepared_facts(key)
        if before is not None and before.get("asked", "") != facts["asked"]:
            store.remove_prepared([key])
        with scratch() as folder:
            pq.write_table(table, folder / PART_FILE)
            (folder / PREPARED_MARKER).write_text(json.dumps(facts) + "\n")
            store.commit_prepared(key, folder)
        return self._kept(key, facts["asked"])


def keep_if(unchanged: Unchanged, out: Path) -> None:
    """Go on if files are what they were; else remove what was made of them, which the next run
    would go on from.

    Raises
    ------
    RaymiaError
        If they are not.
    """
    try:
        unchanged()
    except RaymiaError:
        shutil.rmtree(out)
        raise


def part_key(key: str, what: str, number: int) -> str:
    return digest({"what": "part", "of": key, "written": what, "number": number})


def part_keys(key: str, whats: Sequence[str]) -> list[str]:
    """Of all parts that there may be."""
    return [part_key(key, what, number) for what in whats for number in range(MAX_PARTS)]


def count_parts(items: int, batch: int) -> int:
    """Of so many items, so many side by side."""
    return min(MAX_PARTS, math.ceil(items / batch))


def _parts_of(batches: Sequence[Batch]) -> list[Sequence[Batch]]:
    """Runs of batches, of about the same length; a function of how many batches there are."""
    count = max(1, min(MAX_PARTS, len(batches)))
    ends = [round(len(batches) * place / count) for place in range(count + 1)]
    return [batches[start:end] for start, end in pairwise(ends)]
