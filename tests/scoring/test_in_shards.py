"""Evidence of many records is read in shards, and nothing comes out otherwise."""

from __future__ import annotations

from dataclasses import replace

from answered_audit import two_answered

from raymia.attacks import NamedAttack
from raymia.attacks.learned import LearnedCombination
from raymia.evidence import sharded
from raymia.scoring.reduction import score_target


def test_scores_are_the_same_to_the_bit_in_shards(tmp_path, tiny_gpt2, monkeypatch):
    """And in the order of the audit file, also of an attack that combines the others."""
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    combined = NamedAttack("combined", LearnedCombination(), None)
    inputs = replace(inputs, attacks=[combined, *inputs.attacks])
    whole = [score_target(inputs, store, plan) for plan in plans]

    def refused(*_):
        raise AssertionError("the evidence of all records is read at once")

    monkeypatch.setattr(store, "read", refused)
    monkeypatch.setattr(sharded, "SHARD_RECORDS", 4)
    for plan, expected in zip(plans, whole, strict=True):
        found = score_target(inputs, store, plan)
        assert list(found) == list(expected) == ["combined", "loss", "zlib", "min_k"]
        for label, scores in expected.items():
            assert found[label].tobytes() == scores.tobytes()
