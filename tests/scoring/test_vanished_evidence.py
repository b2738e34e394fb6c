"""Answers that vanish between the last look at the store and the scores are not passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from answered_audit import two_answered

from raymia.evidence import sharded
from raymia.plan.planning import plan_audit
from raymia.scoring.evidence import Answers
from raymia.scoring.reduction import score_target
from raymia.util.errors import RaymiaError


def lose(store, key, left: int) -> None:
    """Delete what is stored under a key, but for the answers about some records."""
    table = store.read(key)
    for part in Path(store.folder.path(key.folder)).glob("*.parquet"):
        part.unlink()
    if left:
        store.commit(key, table.slice(0, left))


@pytest.mark.parametrize("left", [0, 1, 5])
@pytest.mark.parametrize("in_shards", [False, True])
def test_scores_are_refused_whose_answers_are_gone(
    tmp_path, tiny_gpt2, monkeypatch, left, in_shards
):
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    (planned,) = plans[0].target.questions
    lose(store, planned.key, left)
    if in_shards:
        monkeypatch.setattr(sharded, "SHARD_RECORDS", 4)
    with pytest.raises(RaymiaError, match=f"{planned.key.folder}: .* answers are gone"):
        score_target(inputs, store, plans[0])


def test_what_was_missing_before_is_no_news(tmp_path, tiny_gpt2):
    inputs, store, plans = two_answered(tmp_path, tiny_gpt2)
    lose(store, plans[0].target.questions[0].key, 5)
    (plan, *_) = plan_audit(inputs, store)
    assert plan.to_ask
    assert len(score_target(inputs, store, plan)) == len(inputs.attacks)


def test_a_population_is_missed_only_where_it_was_asked_about(tmp_path, tiny_gpt2):
    inputs, store, (plan, _) = two_answered(tmp_path, tiny_gpt2)
    assert Answers(inputs, store, plan, ["another"], population=True).target is not None
    (planned,) = plan.target.questions
    asked = replace(planned, of_population=True)
    of_another = replace(plan, target=replace(plan.target, questions=(asked,)))
    with pytest.raises(RaymiaError, match="1 answers are gone"):
        Answers(inputs, store, of_another, ["another"], population=True)
