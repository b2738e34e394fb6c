"""Evidence of many records is read in shards, and nothing comes out otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
from answered_audit import answer_here, two_answered
from small_inputs import audit, write_jsonl
from tiny_models import passages

from raymia.attacks import NamedAttack, shadow
from raymia.attacks.base import Attack
from raymia.attacks.learned import LearnedCombination
from raymia.evidence import sharded
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
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


@dataclass(frozen=True)
class AboveTheMean(Attack):
    """How far a record is above all that it is scored with."""

    looks_at_all = True

    def score(self, evidence):
        means = evidence.target.tokens.mean()
        return means - np.nanmean(means)


def test_what_looks_at_all_records_is_given_all_of_them(tmp_path, tiny_gpt2, monkeypatch):
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    inputs = replace(inputs, attacks=[*inputs.attacks, NamedAttack("above", AboveTheMean(), None)])
    whole = score_target(inputs, store, plans[0])
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 4)
    found = score_target(inputs, store, plans[0])
    assert found["above"].tobytes() == whole["above"].tobytes()
    assert found["loss"].tobytes() == whole["loss"].tobytes()


@pytest.mark.parametrize("kind", [shadow.Lira, shadow.LiraOffline])
def test_one_variance_for_all_records_is_of_all_records(kind):
    assert kind().looks_at_all
    assert not kind(fixed_variance=False).looks_at_all


@pytest.mark.parametrize("kind", [shadow.LiraT, shadow.LiraTOffline])
def test_a_prior_that_is_not_given_is_of_all_records(kind):
    assert kind().looks_at_all
    assert not kind(prior_degrees=4.0, prior_variance=1.0).looks_at_all


def test_a_population_that_some_questions_are_not_about_is_missed_in_no_shard(
    tmp_path, tiny_gpt2, monkeypatch
):
    """The tokens of the population are asked about, and its texts in lower case are not."""
    texts = passages(40)
    records = {"members": texts[:6], "non_members": texts[6:12], "population": texts[12:]}
    spec = audit(
        tmp_path, tiny_gpt2, None, references={"base": {"model": str(tiny_gpt2), "max_tokens": 9}},
        neighbors=None, attacks=["rmia", "lowercase"], metrics={"resamples": 100},
        records={n: write_jsonl(tmp_path / f"{n}.jsonl", own) for n, own in records.items()},
    )  # fmt: skip
    inputs, store = resolve_inputs(spec), EvidenceStore(spec.store)
    answer_here(inputs, store)
    (plan,) = plan_audit(inputs, store)
    assert not plan.to_ask
    whole = score_target(inputs, store, plan)
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 4)
    found = score_target(inputs, store, plan)
    for label, scores in whole.items():
        assert found[label].tobytes() == scores.tobytes()


def test_a_shard_has_so_many_records_or_bytes_at_most(monkeypatch):
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 6)
    monkeypatch.setattr(sharded, "LOOKED_AT", 2)
    texts = pa.chunked_array([["x"] * 5, ["x"] * 8 + ["y" * 1000] * 3])
    assert [rows.stop for rows in sharded.shards_of(texts)] == [6, 12, 16]
    monkeypatch.setattr(sharded, "SHARD_BYTES", 1500)
    assert [rows.stop for rows in sharded.shards_of(texts)] == [6, 12, 14, 15, 16]
    assert sharded.shards_of(texts.slice(0, 0)) == [slice(0, 0)]


def test_units_of_many_records_are_those_of_few(monkeypatch):
    groups = pa.array(["a", None, "b", "a", None], pa.string())
    table = pa.table({"record_id": ["r0", "r1", "r2", "r3", "r4"], "group": groups})
    few = unit_column(RecordSet(table))
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 2)
    many = unit_column(RecordSet(pa.concat_tables([table.slice(0, 2), table.slice(2)])))
    assert many.to_pylist() == few.to_pylist() == ["group a", "r1", "group b", "group a", "r4"]
