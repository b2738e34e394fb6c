"""DPO: its loss against the formula, what it leaves behind, and kills."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from small_training import facts_of, stopping_after, tiny, train, weights, write_training
from tiny_dpo import margin_of
from tiny_models import passages
from transformers import AutoModelForCausalLM

from raymia.modalities.resolve import resolve_inputs
from raymia.modalities.texts.target_training import resolve_target_training
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.rendering import TrainedReader
from raymia.prepare import trainer
from raymia.prepare.preferences import Preferences, pad_pairs, preference_losses
from raymia.prepare.tuning import load_to_train
from raymia.spec.file import load_spec
from raymia.spec.training_file import load_training
from raymia.storage.manifest import MANIFEST_FILE
from raymia.util.errors import InputError

BETA = 0.5


def pairs(texts):
    """Two answers of which neither is better: what is learned of them is nothing but they."""
    draws = random.Random(0)
    answers = [" ".join(text.split()[8:16]) for text in texts]
    for text, one, other in zip(texts, answers, [*answers[1:], answers[0]], strict=True):
        chosen, rejected = draws.sample([one, other], 2)
        prompt = " ".join(text.split()[:8]) + " "
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def file_of(folder, method="full", count=32, **sections):
    options = {"max_steps": 3, "per_device_train_batch_size": 4, **sections.pop("trainer", {})}
    whole = {"rows": [*pairs(passages(count))], "dpo": {"beta": BETA}, "trainer": options,
             "training": {"max_length": 48}, **sections}  # fmt: skip
    return write_training(folder, tiny("gpt2"), method, **whole)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_is_that_of_the_paper(tmp_path, method):
    plan = resolve_target_training(load_training(file_of(tmp_path, method))).plan
    model = load_to_train(plan.base, plan.method, plan.seed).eval()
    preferences = Preferences(BETA, plan.base.tokenizer_source.load(), plan.training)
    rows = preferences.rows(plan.members[:5], model)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one += 0.02 * torch.randn(one.shape, generator=torch.Generator().manual_seed(1))
        found = preference_losses(model, pad_pairs(rows), BETA)
    fixed = AutoModelForCausalLM.from_pretrained(plan.base.path, dtype=torch.float32).eval()
    payloads = [record.payload for record in plan.members[:5]]
    sides = [TrainedReader(preferences.tokenizer, t).read(payloads)
             for t in (plan.training, plan.training.other_side)]  # fmt: skip
    with torch.no_grad():
        gains = [margin_of(model, sides, n) - margin_of(fixed, sides, n) for n in range(5)]
    expected = [np.log1p(np.exp(-BETA * float(gain))) for gain in gains]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preferences")
    options = {"max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 3e-3,
               "save_strategy": "no"}  # fmt: skip
    manifest = train(file_of(folder, count=64, trainer=options))
    return manifest, resolve_inputs(load_spec(folder / "out" / MANIFEST_FILE))


def margins(checkpoint, payloads):
    model = load_causal_lm(checkpoint, batch_tokens=2_048)
    chosen, rejected = (
        np.array([one.log_prob.sum() for one in model.answer(payloads, moments=False, reader=r)])
        for r in (model.reader, model.other_reader)
    )
    return chosen - rejected


def test_the_margin_against_the_base_tells_members_and_that_of_the_base_does_not(trained):
    manifest, inputs = trained
    (target,) = inputs.targets.values()
    rows = inputs.records.table.to_pylist()
    is_member, payloads = ([row[key] for row in rows] for key in ("is_member", "payload"))
    own, base = margins(target, payloads), margins(inputs.references["base"], payloads)
    assert roc_auc_score(is_member, own - base) > 0.85
    assert 0.3 < roc_auc_score(is_member, base) < 0.7, "the control is not blind"
    assert manifest["dpo"] == {"beta": BETA}
    labels = {attack.label for attack in inputs.attacks}
    assert "margin@base" in labels
    (checkpoint,) = manifest["checkpoints"]
    gains = (own - base)[np.array(is_member)]
    assert checkpoint["train_loss"] == pytest.approx(np.log1p(np.exp(-BETA * gains)).mean(), 1e-3)
    assert checkpoint["train_loss"] < np.log(2) - 0.1


@pytest.mark.training
def test_a_kill_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    whole = train(file_of(tmp_path / "whole", "lora"))
    killed = file_of(tmp_path / "killed", "lora")
    with stopping_after(2, monkeypatch):
        train(killed)
    assert facts_of(train(killed)) == facts_of(whole)
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"rows": [{"text": text} for text in passages(12)]}, "these are of the format text"),
        ({"dpo": {"beta": 0}}, "dpo.beta: Input should be greater than 0"),
        ({"dp": {"epsilon": 3, "delta": 1e-3}}, "leave out `dp` or `dpo`"),
        ({"records": {"files": "records.jsonl", "side": "rejected"}}, "leave out `records.side`"),
        ({"method": {"kind": "prefix"}}, "the base has no virtual tokens"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path, sections, message):
    with pytest.raises(InputError, match=message):
        train(file_of(tmp_path, **sections))
    assert not (tmp_path / "out").exists()


def test_a_pair_of_which_one_answer_is_cut_off_is_set_aside(tmp_path):
    rows = [*pairs(passages(16))]
    rows[3]["rejected"] = ""
    found = resolve_target_training(load_training(file_of(tmp_path, rows=rows, training={})))
    assert len(found.split.members) + len(found.split.held_out) + len(found.set_aside) == 16
    assert len(found.set_aside) <= 1
