"""What training on preferences leaves behind is found by the margin."""

from __future__ import annotations

import random

import pytest
from chat_templates import TRIMMED_AND_MARKED
from small_audit import BASE, console, passages
from small_chat_audit import write_chat_audit, write_rows
from tiny_dpo import tune_by_dpo

from raymia.models.causal.training import Training
from raymia.records.conversations import canonical, payload_of
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

COUNT = 24


def random_pairs(texts):
    """Two answers of which neither is better: what is learned of them is nothing but they."""
    draws = random.Random(0)
    shuffled = [" ".join(text.split()[8:20]) for text in texts]
    others = [*shuffled[1:], shuffled[0]]
    for text, one, other in zip(texts, shuffled, others, strict=True):
        chosen, rejected = draws.sample([one, other], 2)
        yield {
            "prompt": [{"role": "user", "content": " ".join(text.split()[:8])}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    texts = passages(24)
    members = list(random_pairs(texts[:COUNT]))
    others = list(random_pairs(texts[COUNT : 2 * COUNT]))
    training = Training("preference", "completion", template=TRIMMED_AND_MARKED)
    payloads = [payload_of(canonical("preference", row)[0]) for row in members]
    tuned = tune_by_dpo(BASE, payloads, training, folder / "tuned")
    records = {
        "members": write_rows(folder / "m.jsonl", members),
        "non_members": write_rows(folder / "n.jsonl", others),
    }
    file = write_chat_audit(
        folder,
        training={"template": "template.jinja"},
        records=records,
        targets=[{"name": "tuned", "model": str(tuned)}, {"name": "blind", "model": str(BASE)}],
        references={"base": {"model": str(BASE)}},
        attacks=["margin", "reward@base", "reward_of_other@base"],
    )
    result = run_audit(load_spec(file), console())
    return {(m.target, m.attack): m.auc for m in result.metrics}


@pytest.mark.training
def test_the_margin_against_the_base_tells_what_was_preferred_in_training(audited):
    assert audited["tuned", "margin@base"].value > 0.9
    assert audited["tuned", "margin@base"].low > 0.7


@pytest.mark.training
def test_a_model_that_saw_no_pair_has_no_margin_of_members(audited):
    blind = audited["blind", "margin"]
    assert blind.low < 0.5 < blind.high
