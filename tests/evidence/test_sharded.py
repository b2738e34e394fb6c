"""Evidence that is read for some records after the others."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from raymia.evidence.row_index import RowIndex
from raymia.evidence.sharded import ShardedEvidence
from raymia.evidence.store import EvidenceKey, EvidenceStore

KEY = EvidenceKey("number.answers", {"model": "m"})
IDS = [f"record-{n}" for n in range(11)]
"""Of which the last one is of the population."""
SHARDS = [slice(0, 4), slice(4, 8), slice(8, 10)]


@pytest.fixture
def store(tmp_path) -> EvidenceStore:
    """Two answers on each record but the third, in parts of any order that overlap."""
    found = EvidenceStore(str(tmp_path))
    rows = [(record, n) for record in [*IDS, "nobody's"] for n in (0, 1) if record != "record-2"]
    random.Random(0).shuffle(rows)
    for start in range(0, len(rows), 5):
        ids, neighbors = zip(*rows[start : start + 7], strict=True)
        columns = {
            "record_id": list(ids),
            "neighbor": pa.array(neighbors, pa.int16()),
            "value": [f"{record}/{n}/{start}" for record, n in zip(ids, neighbors, strict=True)],
            "error": pa.nulls(len(ids), pa.string()),
        }
        found.commit(KEY, pa.table(columns))
    return found


def test_each_shard_has_the_rows_of_its_records_as_the_store_has_them(store):
    """The same of those that are there twice, in the same order; the population in all of them."""
    everything = store.read(KEY).to_pylist()
    evidence = ShardedEvidence(store, RowIndex(pa.array(IDS)), SHARDS)
    seen = []
    for rows in evidence.shards():
        seen.append((rows.start, rows.stop))
        own = [*IDS[rows], IDS[10]]
        expected = [row for row in everything if row["record_id"] in own]
        found = evidence.read(KEY).to_pylist()
        assert sorted(found, key=str) == sorted(expected, key=str)
        assert {row["record_id"] for row in found} == {*own} - {"record-2"}
    assert seen == [(rows.start, rows.stop) for rows in SHARDS]


def test_parts_are_read_once_for_all_shards(store, monkeypatch):
    read = []
    original = EvidenceStore.read_part
    monkeypatch.setattr(
        EvidenceStore,
        "read_part",
        lambda self, name, *rest: (read.append(name), original(self, name, *rest))[1],
    )
    evidence = ShardedEvidence(store, RowIndex(pa.array(IDS)), SHARDS)
    for _ in evidence.shards():
        evidence.read(KEY)
    assert len(read) == len({*read}) == len(store.folder.names(KEY.folder, ".parquet"))


def test_a_key_without_answers_has_none_in_any_shard(store):
    evidence = ShardedEvidence(store, RowIndex(pa.array(IDS)), SHARDS)
    other = EvidenceKey("number.answers", {"model": "another"})
    assert [evidence.read(other) for _ in evidence.shards()] == [None] * 3
