"""Evidence of many records is read in shards, and nothing comes out otherwise."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from answered_audit import two_answered

from raymia.attacks import NamedAttack
from raymia.attacks.learned import LearnedCombination
from raymia.evidence import sharded
from raymia.records.base import RecordSet
from raymia.scoring.evidence import unit_column
from raymia.scoring.parts import ScoreParts
from raymia.scoring.reduction import score_target


@pytest.mark.parametrize("limit", [{"SHARD_RECORDS": 4}, {"SHARD_BYTES": 1, "LOOKED_AT": 3}])
def test_scores_are_the_same_to_the_bit_in_shards(tmp_path, tiny_gpt2, monkeypatch, limit):
    """And in the order of the audit file, also of an attack that combines the others."""
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    combined = NamedAttack("combined", LearnedCombination(), None)
    inputs = replace(inputs, attacks=[combined, *inputs.attacks])
    whole = [score_target(inputs, store, plan) for plan in plans]

    def refused(*_):
        raise AssertionError("the evidence of all records is read at once")

    monkeypatch.setattr(store, "read", refused)
    for name, value in limit.items():
        monkeypatch.setattr(sharded, name, value)
    for plan, expected in zip(plans, whole, strict=True):
        found = score_target(inputs, store, plan)
        assert list(found) == list(expected) == ["combined", "loss", "zlib", "min_k"]
        for label, scores in expected.items():
            assert found[label].tobytes() == scores.tobytes()
        parts = ScoreParts(str(tmp_path / "parts"), "scores")
        parts.write(plan.name, found)
        for label, scores in parts.read(plan.name).items():
            assert scores.tobytes() == expected[label].tobytes()
        assert parts.column(plan.name, "loss").tobytes() == expected["loss"].tobytes()


def test_a_shard_has_so_many_records_or_bytes_at_most(monkeypatch):
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 6)
    monkeypatch.setattr(sharded, "LOOKED_AT", 2)
    texts = pa.chunked_array([["x"] * 5, ["x"] * 8 + ["y" * 1000] * 3])
    assert [rows.stop for rows in sharded.shards_of(texts)] == [6, 12, 16]
    monkeypatch.setattr(sharded, "SHARD_BYTES", 1500)
    assert [rows.stop for rows in sharded.shards_of(texts)] == [6, 12, 14, 16]
    assert sharded.shards_of(texts.slice(0, 0)) == [slice(0, 0)]


def test_units_of_many_records_are_those_of_few(monkeypatch):
    groups = pa.array(["a", None, "b", "a", None], pa.string())
    table = pa.table({"record_id": ["r0", "r1", "r2", "r3", "r4"], "group": groups})
    few = unit_column(RecordSet(table))
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 2)
    many = unit_column(RecordSet(pa.concat_tables([table.slice(0, 2), table.slice(2)])))
    assert many.to_pylist() == few.to_pylist() == ["group a", "r1", "group b", "group a", "r4"]
