"""Scores on their way from the attacks to the report: a file for each target.

Scores are reduced where they are made, and what is made of them is small. The scores themselves
wait in files until the run's table is written, so that nobody holds those of two targets.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymia.attacks.base import Scores
from raymia.evidence.sharded import has_shards
from raymia.storage.files import Folder
from raymia.storage.moves import TEMPORARY_PREFIX
from raymia.storage.scratch_table import scratch_array
from raymia.util.hashing import digest

LABELS = b"raymia.attacks"
"""Key of the Parquet metadata that names the columns: a label may hold what a path may not."""
MAX_KEPT, MAX_KEPT_BYTES = 8, 2**20
"""Files of another machine that are kept in memory, and the size of each, at most."""


def room_for_scores(records: int) -> Scores:
    """An array that a score for each record is written to; of many records it lies in a scratch
    file."""
    return scratch_array(records) if has_shards(records) else np.empty(records)


@dataclass(frozen=True)
class ScoreParts:
    """The scores of a run by target; every column is in the order of the records.

    Parameters
    ----------
    url : a folder that all machines which score share.
    name : of the run's own subfolder.
    """

    url: str
    name: str

    def write(self, target: str, scores: Mapping[str, Scores]) -> None:
        """Keep a target's scores, [records] by the attack's label; NaN for none."""
        columns = [pa.array(values, pa.float64()) for values in scores.values()]
        table = pa.table(columns, names=[str(n) for n in range(len(columns))])
        table = table.replace_schema_metadata({LABELS: json.dumps(list(scores))})
        with Folder(self.url).writing(self._file(target)) as file:
            pq.write_table(table, file, compression="zstd", use_dictionary=False)

    def read(self, target: str, attacks: Sequence[str] | None = None) -> dict[str, Scores]:
        """Scores of some attacks on a target, or of all; other columns are not read."""
        with self._opened(target) as opened, pq.ParquetFile(opened) as file:
            labels: list[str] = json.loads(file.schema_arrow.metadata[LABELS])
            wanted = labels if attacks is None else attacks
            names = {label: str(labels.index(label)) for label in wanted}
            found = {label: room_for_scores(file.metadata.num_rows) for label in names}
            done = 0
            for batch in file.iter_batches(columns=[*names.values()]):
                for label, name in names.items():
                    found[label][done : done + len(batch)] = batch[name].to_numpy()
                done += len(batch)
        return found

    def column(self, target: str, attack: str) -> Scores:
        """Scores of one attack on a target, [records]."""
        return self.read(target, [attack])[attack]

    def _opened(self, target: str) -> IO[bytes]:
        """A target's file. Columns are read one by one, so a small one of another machine is asked
        for once, and not for each of them."""
        name, folder = self._file(target), Folder(self.url)
        kept = None if folder.is_local else _kept(self.url, name)
        return folder.open(name) if kept is None else io.BytesIO(kept)

    def _file(self, target: str) -> str:
        return f"{self.name}/{digest(target)}.parquet"


@lru_cache(maxsize=MAX_KEPT)
def _kept(url: str, name: str) -> bytes | None:
    """A file of a run, which nobody writes twice; None for a large one."""
    folder = Folder(url)
    small = int(folder.fs.info(folder.path(name))["size"]) <= MAX_KEPT_BYTES
    return folder.read(name) if small else None


@contextmanager
def score_parts(url: str) -> Iterator[ScoreParts]:
    """A place for the scores of one run, removed at the end of the block.

    A run that is killed leaves a folder whose name says that it may be deleted.
    """
    parts = ScoreParts(url, f"scores/{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        yield parts
    finally:
        Folder(url).remove_folder(parts.name)
