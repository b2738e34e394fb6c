"""A self-prompt reference is fine-tuned as its target was, where `raymia train` trained that."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_training import tiny, train, weights, write_training
from tiny_models import passages

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.models.tokenizers import tokenizer_of
from raymia.prepare import trainer
from raymia.prepare.self_prompt import make_reference
from raymia.prepare.train_target import encode
from raymia.run import calibrate as calibration
from raymia.spec.file import load_spec
from raymia.storage.manifest import MANIFEST_FILE
from raymia.util import optional
from raymia.util.errors import InputError

ADAPTER = "adapter_model.safetensors"
OPTIONS = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 0.02,
           "lr_scheduler_type": "constant", "weight_decay": 0.1}  # fmt: skip


@pytest.fixture(scope="module", params=["lora", "full"])
def trained(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("trained")
    return train(write_training(folder, tiny("gpt2"), request.param, trainer=OPTIONS)), folder


def recipe_of(folder, to=None, **reference):
    """The recipe of the reference in an audit of the target."""
    inputs = recipe_inputs(folder, to, **reference)
    (target,) = inputs.targets
    return inputs.modality.recipe(inputs, "own", target)


def recipe_inputs(folder, to=None, **reference):
    """An audit of the target."""
    to = to or folder
    lines = (json.dumps({"text": text}) + "\n" for text in passages(40)[30:])
    (to / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    whole = {"kind": "self_prompt", "prompts": "prompts.jsonl", "texts": 12, "prompt_tokens": 4,
             "max_tokens": 20, **reference}  # fmt: skip
    content = {"from_training": str(folder / "out"), "attacks": ["difference@own"],
               "references": {"own": whole}, "resources": {"engine": "local"}}  # fmt: skip
    file = to / "audit.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return resolve_inputs(load_spec(file))


def make(recipe, store):
    make_reference(recipe, store, batch_tokens=512, on_texts=lambda *_: None,
                   on_steps=lambda *_: None)  # fmt: skip
    return store.prepared_path(recipe.key), store.prepared_facts(recipe.key)


def test_the_reference_has_the_method_and_the_steps_of_the_target(trained, tmp_path):
    manifest, folder = trained
    recipe = recipe_of(folder)
    kind = manifest["method"]["kind"]
    assert recipe.own.method.model_dump() == manifest["method"]
    assert recipe.steps == 3
    assert f"3 steps, by the target's own recipe ({kind})" in recipe.describe("t")
    made, facts = make(recipe, EvidenceStore(str(tmp_path / "store")))
    assert (facts["steps"], facts["texts"]) == (3, 11)
    assert not [*made.glob("checkpoint-*")]
    checkpoint = recipe.finished(made)
    assert (checkpoint.adapter is None) is (kind == "full")
    own = json.loads((made / "adapter_config.json").read_text()) if kind != "full" else {}
    assert own.get("r") == manifest["method"].get("r")


def test_a_text_that_was_stopped_is_not_taken_for_one_that_ended(trained, tmp_path):
    """However long the records were that the target was trained on."""
    _, folder = trained
    recipe = recipe_of(folder)
    tokenizer = tokenizer_of(recipe.base)
    long, short = passages(2)[0], "A heron stands."
    stopped = tokenizer.decode(tokenizer(long)["input_ids"][:20])
    training = replace(recipe.target.training, max_length=100, eos=True)
    plan = recipe.own.plan(
        recipe.base, [stopped, short] * 6, training, 0, tmp_path, "run", recipe.spec.max_tokens
    )
    rows = [row["input_ids"] for row in encode(plan.members, tokenizer, training, plan.max_tokens)]
    ended = {row[-1] == tokenizer.eos_token_id for row in rows if len(row) == 20}
    assert ended == {False}
    assert {row[-1] for row in rows if len(row) < 20} == {tokenizer.eos_token_id}


def test_what_the_audit_says_comes_first(trained):
    _, folder = trained
    said = recipe_of(folder, fine_tune={"epochs": 1})
    assert said.own is None
    assert said.key != recipe_of(folder).key
    assert said.material_key == recipe_of(folder).material_key


def test_another_recipe_is_another_reference(trained, tmp_path):
    manifest, folder = trained
    options = {**OPTIONS, "learning_rate": 0.03}
    train(write_training(tmp_path, tiny("gpt2"), manifest["method"], trainer=options))
    assert recipe_of(tmp_path).key != recipe_of(folder).key


def test_a_kill_changes_nothing(trained, tmp_path, monkeypatch):
    _, folder = trained
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    recipe = recipe_of(folder)
    whole, _ = make(recipe, EvidenceStore(str(tmp_path / "whole")))
    store = EvidenceStore(str(tmp_path / "killed"))

    def dying(done, _total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_reference(recipe, store, batch_tokens=512, on_texts=lambda *_: None, on_steps=dying)
    again, _ = make(recipe, store)
    assert weights(again) == weights(whole)


def test_too_few_texts_for_a_step_are_refused_before_any_is_written(trained, tmp_path):
    _, folder = trained
    said = r"references\.own\.texts: of 4 texts 3 are .* takes \(4\); give at least 5, or say"
    with pytest.raises(InputError, match=said):
        recipe_of(folder, to=tmp_path, texts=4)
    assert recipe_of(folder, to=tmp_path, texts=5).own is not None
    assert recipe_of(folder, to=tmp_path, texts=4, fine_tune={"epochs": 1}).own is None


def test_too_few_texts_that_are_left_for_a_step_are_refused(trained, tmp_path):
    recipe = recipe_of(trained[1])
    training = recipe.target.training
    with pytest.raises(InputError, match="3 texts are fewer than one step of the target's own"):
        recipe.own.plan(recipe.base, passages(4), training, 0, tmp_path, "run", 20)


def test_a_calibration_trains_by_the_same_recipe_in_fewer_steps_on_few_texts(
    trained, tmp_path, monkeypatch
):
    """So that what it measures is filed under what the audit's plan looks for."""
    recipe = recipe_of(trained[1])
    monkeypatch.setattr(calibration, "CALIBRATION_STEPS", 2)
    small = calibration._smaller(recipe_inputs(trained[1], texts=40, generation_batch=4), 4)
    (target,) = small.targets
    few = small.modality.recipe(small, "own", target)
    assert (few.items, few.steps) == (4, 2)
    assert few.rate_parts()[1] == recipe.rate_parts()[1]
    _, facts = make(few, EvidenceStore(str(tmp_path / "store")))
    assert facts["steps"] == 2


def test_texts_are_taken_again_until_packed_rows_fill_a_step(trained, tmp_path):
    recipe = recipe_of(trained[1])
    trainer = recipe.own.trainer.model_copy(update={"packing": True})
    own = replace(recipe.own, trainer=trainer)
    given = recipe.base, passages(3), replace(recipe.target.training, max_length=40), 0, tmp_path
    with pytest.raises(InputError, match="packed into"):
        own.plan(*given, "run", 20)
    assert own.small(2).plan(*given, "run", 20).rows >= 4


def test_a_manifest_that_was_edited_is_refused(trained, tmp_path):
    manifest, folder = trained
    changed = {**manifest, "trainer": {**manifest["trainer"], "learning_rate": 1.0}}
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(changed))
    target = {"name": "t", "model": str(folder / "out" / manifest["checkpoints"][0]["folder"]),
              "trained_by": str(tmp_path / MANIFEST_FILE)}  # fmt: skip
    if manifest["method"]["kind"] != "full":
        target = {**target, "adapter": target["model"], "model": str(tiny("gpt2"))}
    content = {"records": {"members": str(folder / "out" / "members.jsonl")}, "targets": [target],
               "references": {"base": {"model": str(tiny("gpt2"))},
                              "own": {"kind": "self_prompt", "prompts": "none"}}}  # fmt: skip
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"trained_by: .* was edited after the training"):
        resolve_inputs(load_spec(tmp_path / "a.yaml"))


DP = {"epsilon": 3, "delta": 1e-3, "max_grad_norm": 0.5}


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A target whose gradients were cut and had noise added."""
    folder = tmp_path_factory.mktemp("private")
    return train(write_training(folder, tiny("gpt2"), trainer=OPTIONS, dp=DP)), folder


def test_the_reference_of_a_private_target_has_its_noise_and_its_cutting(private, tmp_path):
    manifest, folder = private
    recipe = recipe_of(folder)
    kept = recipe.target.training
    plan = recipe.own.plan(recipe.base, passages(12), kept, 0, tmp_path, "run", 20)
    assert plan.privacy.noise_multiplier == manifest["privacy"]["noise_multiplier"]
    assert plan.privacy.spec.max_grad_norm == DP["max_grad_norm"]
    assert plan.privacy.expected_batch == OPTIONS["per_device_train_batch_size"]
    assert plan.privacy.sample_rate == plan.privacy.expected_batch / len(plan.members)
    assert "own recipe (lora, with its noise and its cutting" in recipe.describe("t")


def test_a_private_reference_is_another_than_a_plain_one_and_claims_nothing(private, tmp_path):
    recipe = recipe_of(private[1])
    store = EvidenceStore(str(tmp_path / "store"))
    made, facts = make(recipe, store)
    assert facts["steps"] == 3
    assert "privacy" not in facts
    plain = replace(recipe, own=replace(recipe.own, noise=None))
    assert plain.key != recipe.key
    assert weights(make(plain, store)[0]) != weights(made)


def test_a_private_recipe_without_opacus_is_refused_and_fine_tune_is_not(
    private, tmp_path, monkeypatch
):
    monkeypatch.setattr(optional, "is_installed", lambda package: package != "opacus")
    with pytest.raises(InputError, match=r"references\.own: opacus is not installed here"):
        recipe_of(private[1], to=tmp_path)
    assert recipe_of(private[1], to=tmp_path, fine_tune={"epochs": 1}).own is None


@pytest.mark.parametrize(
    "said",
    [{}, {"fine_tune": {"epochs": 1, "learning_rate": 1e-9, "lora": {"r": 2}}}],
    ids=["own recipe", "fine_tune"],
)
def test_a_reference_does_not_start_with_the_adapter_that_its_target_started_with(tmp_path, said):
    """Whose seed is the audit's, as both are 0 unless they are given."""
    still = {**OPTIONS, "learning_rate": 1e-9}
    manifest = train(write_training(tmp_path, tiny("gpt2"), trainer=still))
    made, _ = make(recipe_of(tmp_path, **said), EvidenceStore(str(tmp_path / "store")))
    own, reference = (
        {name: table for name, table in load_file(folder / ADAPTER).items() if "lora_A" in name}
        for folder in (tmp_path / "out" / manifest["checkpoints"][-1]["folder"], made)
    )
    assert own.keys() == reference.keys()
    assert not any(torch.allclose(own[name], reference[name], atol=1e-4) for name in own)
