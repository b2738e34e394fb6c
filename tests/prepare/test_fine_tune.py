"""Fine-tuning: it learns the texts, never the padding, and saves safetensors."""

from __future__ import annotations

import json
import math
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chat_templates import CHATML, chat
from forks import programs
from quantized_models import save_bitsandbytes
from safetensors.torch import load_file
from tiny_models import BASE, checkpoint, passages, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.fold import After
from raymia.models.causal.model import CausalLM
from raymia.models.causal.training import Training
from raymia.prepare import train_target, trainer
from raymia.prepare.fine_tune import encode_as_trained, encode_for_training, fine_tune, mean_loss
from raymia.prepare.together import device_map
from raymia.prepare.trainer import base_dtype, in_bfloat16, pad_batch
from raymia.prepare.tuning import adapted, make_savable
from raymia.spec import FineTuneSpec, SelfPromptReference
from raymia.spec.target_training import TrainerSpec
from raymia.util.errors import NothingWrittenError

TEXTS = passages(16)
HELD_OUT = passages(8, start=100)


def tune(folder, texts=TEXTS, base=BASE, seed=0, measure_on=HELD_OUT, progress=None,
         training=None, **settings):  # fmt: skip
    spec = FineTuneSpec(
        **{"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "max_tokens": 64, **settings}
    )
    report = progress or (lambda *_: None)
    return fine_tune(base, texts, spec, folder, seed=seed, progress=report, measure_on=measure_on,
                     training=training)  # fmt: skip


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "model"
    steps = []
    facts = tune(folder, progress=lambda done, total: steps.append((done, total)))
    return folder, facts, steps


@pytest.fixture(scope="module")
def tuned_lora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    return folder, tune(folder, lora={"r": 8, "alpha": 16, "dropout": 0.0}, learning_rate=1e-2)


def test_texts_become_likelier_than_under_the_base(tuned, base):
    folder, facts, _ = tuned
    model = load_causal_lm(checkpoint(folder, max_tokens=64), batch_tokens=4_096)
    cut = CausalLM(base.model, base.tokenizer, batch_tokens=4_096, max_tokens=64)
    assert facts["train_loss"] < mean_loss(cut, TEXTS) - 0.5
    assert facts["train_loss"] == pytest.approx(mean_loss(model, TEXTS), abs=1e-3)
    assert facts["held_out_loss"] == pytest.approx(mean_loss(model, HELD_OUT), abs=1e-3)
    assert facts["train_loss"] < facts["held_out_loss"]


def test_texts_that_are_cut_before_what_carries_a_loss_are_said_to_be_none(tmp_path):
    rows = [{"prompt": text, "completion": "Well."} for text in TEXTS[:2]]
    training = Training("completion", "completion")
    spec = FineTuneSpec(epochs=1, max_tokens=8)
    with pytest.raises(NothingWrittenError, match=r"not one of 1 texts .* its first 8; make"):
        fine_tune(BASE, map(json.dumps, rows), spec, tmp_path / "out", seed=0,
                  progress=lambda *_: None, training=training)  # fmt: skip


def test_a_base_is_tuned_with_the_template_and_on_the_answers_alone(tmp_path):
    """The loss that it learns by is that of the assistant's tokens, as a target's was."""
    rows = [{"messages": chat(text[:40], text[40:160])} for text in TEXTS]
    training = Training("chat", "assistant", template=CHATML)
    payloads = [*map(json.dumps, rows)]
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for text, row in zip(TEXTS, encode_as_trained(payloads, tokenizer, training, 256), strict=True):
        learned = [label for label in row["labels"] if label != -100]
        assert tokenizer.decode(learned) == f"{text[40:160]}<|im_end|>\n"
    facts = tune(tmp_path / "out", payloads, training=training, measure_on=payloads[:4], epochs=1,
                 max_tokens=256)  # fmt: skip
    losses = {}
    for loss_on in ("assistant", "all"):
        how = Training("chat", loss_on, template=CHATML)
        model = load_causal_lm(checkpoint(tmp_path / "out", training=how), batch_tokens=4_096)
        answers = model.answer(payloads, moments=False)
        losses[loss_on] = -np.concatenate([answer.log_prob for answer in answers]).mean()
    assert facts["train_loss"] == pytest.approx(losses["assistant"], abs=1e-3)
    assert abs(losses["all"] - losses["assistant"]) > 0.05


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"max_tokens": 512}, 512),
        ({"max_tokens": 512, "fine_tune": {"epochs": 1}}, 512),
        ({"max_tokens": 512, "fine_tune": {"max_tokens": 64}}, 64),
        ({}, 128),
    ],
)
def test_a_reference_learns_all_of_what_was_written_unless_it_is_told_otherwise(said, expected):
    reference = SelfPromptReference(kind="self_prompt", prompts="none", **said)
    assert reference.tuning.max_tokens == expected


def test_facts_are_written_beside_safetensors(tuned):
    folder, facts, _ = tuned
    assert json.loads((folder / "facts.json").read_text()) == facts
    assert (facts["texts"], facts["steps"], facts["epochs"]) == (16, 6, 3)
    assert (folder / "model.safetensors").is_file()
    assert (folder / "tokenizer.json").is_file()
    assert not [p for p in folder.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_progress_is_told_to_the_end(tuned):
    assert tuned[2] == [(n, 6) for n in range(1, 7)]


def test_lora_learns_and_saves_an_adapter_alone(tuned_lora, base):
    folder, facts = tuned_lora
    assert (folder / "adapter_model.safetensors").is_file()
    assert (folder / "adapter_config.json").is_file()
    assert not (folder / "model.safetensors").exists()
    adapted = load_causal_lm(checkpoint(BASE, adapter=str(folder)), batch_tokens=4_096)
    cut = CausalLM(adapted.model, adapted.tokenizer, batch_tokens=4_096, max_tokens=64)
    assert facts["train_loss"] == pytest.approx(mean_loss(cut, TEXTS), abs=1e-3)
    plain = CausalLM(base.model, base.tokenizer, batch_tokens=4_096, max_tokens=64)
    assert facts["train_loss"] < mean_loss(plain, TEXTS) - 0.2


def test_same_seed_makes_the_same_weights_and_another_seed_others(tmp_path):
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        tune(tmp_path / str(number), TEXTS[:6], seed=seed, epochs=1, batch_size=2)
        weights.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_bfloat16_is_what_is_computed_in_and_not_what_is_trained(tuned, tmp_path):
    _, facts, _ = tuned
    asked = tune(tmp_path / "bf16", bf16=True)
    assert asked["train_loss"] != facts["train_loss"]
    assert asked["train_loss"] == pytest.approx(facts["train_loss"], abs=0.05)
    weights = load_file(tmp_path / "bf16" / "model.safetensors")
    assert {w.dtype for w in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    "lora", [None, {"r": 2, "alpha": 4, "dropout": 0.2}], ids=["whole", "LoRA with dropout"]
)
def test_layers_computed_again_for_the_gradient_train_the_same_weights(tmp_path, lora, monkeypatch):
    runs = []
    forward = GPT2MLP.forward

    def counted(layer, *given):
        runs.append(layer.training)
        return forward(layer, *given)

    monkeypatch.setattr(GPT2MLP, "forward", counted)
    settings = {"lora": lora, "epochs": 1}
    tune(tmp_path / "kept", **settings)
    kept = sum(runs)
    tune(tmp_path / "again", **settings, gradient_checkpointing=True)
    assert kept > 0
    assert sum(runs) - kept == 2 * kept
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()


@pytest.mark.parametrize("is_saved", [False, True], ids=["in 4 bits for it", "saved in 4 bits"])
def test_lora_learns_on_a_base_in_4_bits(tmp_path, monkeypatch, is_saved):
    base = save_bitsandbytes(tmp_path / "nf4", "nf4") if is_saved else BASE
    given = {}

    def note(model, method):
        given.update({type(layer).__name__: layer for layer in model.modules()})
        return adapted(model, method)

    monkeypatch.setattr("raymia.prepare.fine_tune.adapted", note)
    lora = {"r": 8, "alpha": 16, "dropout": 0.0, "quantized": not is_saved}
    facts = tune(tmp_path / "adapter", base=base, lora=lora, learning_rate=1e-2)
    assert given["Linear4bit"].weight.quant_type == "nf4"
    quantization = "none" if is_saved else "nf4"
    model = load_causal_lm(
        checkpoint(base, adapter=str(tmp_path / "adapter"), quantization=quantization),
        batch_tokens=4_096,
    )
    cut = CausalLM(model.model, model.tokenizer, batch_tokens=4_096, max_tokens=64)
    assert facts["train_loss"] == pytest.approx(mean_loss(cut, TEXTS), abs=1e-2)
    plain = load_causal_lm(checkpoint(base, quantization=quantization), batch_tokens=4_096)
    plain = CausalLM(plain.model, plain.tokenizer, batch_tokens=4_096, max_tokens=64)
    assert facts["train_loss"] < mean_loss(plain, TEXTS) - 0.2


def test_keys_of_trainings_are_those_of_what_decides_their_weights():
    plain = FineTuneSpec(lora={})
    assert "quantized" not in plain.key_parts()["lora"]
    assert FineTuneSpec(lora={"quantized": True}).key_parts()["lora"]["quantized"] is True
    assert FineTuneSpec(lora={}, gradient_checkpointing=True).key_parts() == plain.key_parts()


def test_what_is_not_said_of_bfloat16_keeps_the_keys_of_before_it_could_be_said():
    assert FineTuneSpec().key_parts() == {
        "epochs": 2, "batch_size": 16, "learning_rate": 1e-4, "max_tokens": 128, "lora": None
    }  # fmt: skip
    assert FineTuneSpec(bf16=False).key_parts()["bf16"] is False
    assert "bf16" not in TrainerSpec().key_parts()
    assert TrainerSpec(bf16=True).key_parts()["bf16"] is True


@pytest.mark.parametrize(
    ("gpu", "has_it", "is_said", "expected"),
    [
        (True, True, None, (True, torch.bfloat16)),
        (True, False, None, (False, torch.float32)),
        (True, True, False, (False, torch.float32)),
        (False, False, None, (False, torch.float32)),
        (False, False, True, (True, torch.float32)),
    ],
)
def test_a_gpu_computes_in_bfloat16_if_it_has_it(monkeypatch, gpu, has_it, is_said, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_it)
    assert (in_bfloat16(is_said), base_dtype(is_said, is_adapted=True)) == expected
    assert base_dtype(is_said, is_adapted=False) == torch.float32


def test_held_out_texts_of_its_own_are_not_trained_on(tmp_path):
    facts = tune(tmp_path / "m", [*TEXTS, *HELD_OUT[:4]], measure_on=None, epochs=1)
    assert facts["texts"] == 19
    assert math.isfinite(facts["held_out_loss"])


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_nothing_to_train_on_is_refused(tmp_path, texts):
    with pytest.raises(NothingWrittenError, match="has a token with a loss among its first"):
        tune(tmp_path / "m", texts)
    assert not (tmp_path / "m").exists()


# ---------------------------------------------------------------------------- padding


def test_padding_has_no_label_whatever_token_it_is_written_with():
    batch = pad_batch([{"input_ids": [5, 0, 7]}, {"input_ids": [0]}, {"input_ids": [1, 0]}])
    assert batch["labels"].tolist() == [[5, 0, 7], [0, -100, -100], [1, 0, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["input_ids"].shape == (3, 3)


def test_padding_changes_no_gradient():
    """A short text beside a long one teaches what it teaches alone."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    short = tokenizer("Yes, sir.")["input_ids"]
    long = tokenizer(TEXTS[0])["input_ids"][:40]

    def gradient(rows):
        model.zero_grad()
        batch = pad_batch([{"input_ids": ids} for ids in rows])
        loss = model(**batch).loss
        count = sum(len(ids) - 1 for ids in rows)
        (loss * count).backward()  # the sum over tokens
        return model.transformer.h[0].attn.c_attn.weight.grad.clone()

    together, apart = gradient([short, long]), gradient([short]) + gradient([long])
    np.testing.assert_allclose(together, apart, rtol=1e-3, atol=1e-4)


def test_whole_texts_end_with_end_of_text_and_cut_ones_do_not():
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    end = tokenizer.eos_token_id
    short, long = "Yes, sir.", TEXTS[0]
    ids = tokenizer(short)["input_ids"]
    first, second = encode_for_training([short, long], tokenizer, 12)
    assert first["input_ids"] == [*ids, end]
    assert second["input_ids"] == tokenizer(long)["input_ids"][:12]


@pytest.mark.parametrize("limit", [5, 6, 7])
def test_training_text_is_never_longer_than_its_limit(limit):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    for row in encode_for_training(["Hello there, world", *TEXTS], tokenizer, limit):
        assert 2 <= len(row["input_ids"]) <= limit


def test_texts_without_two_tokens_are_left_out():
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    assert encode_for_training([""], tokenizer, 12) == []
    assert encode_for_training([], tokenizer, 12) == []


def test_mean_loss_is_over_tokens_not_over_texts(base):
    short, long = "Yes, sir.", TEXTS[0]
    answers = base.answer([short, long], moments=False)
    tokens = np.concatenate([a.log_prob for a in answers])
    assert mean_loss(base, [short, long]) == pytest.approx(-tokens.mean(), abs=1e-4)
    assert math.isnan(mean_loss(base, ["I"]))


KILLED = """
import json, os, signal, sys
from pathlib import Path
import torch
from raymia.prepare import fine_tune, trainer
from raymia.spec import FineTuneSpec
from raymia.spec.target_training import TrainerSpec

torch.set_num_threads(1)  # as tests do
given = json.loads(sys.argv[1])
trainer.SAVE_SECONDS = 0

def progress(done, total):
    if done == given["last"]:
        os.kill(os.getpid(), signal.SIGKILL)

fine_tune.fine_tune(
    Path(given["base"]), given["texts"], FineTuneSpec(**given["spec"]), Path(given["out"]),
    seed=0, progress=progress, measure_on=given["held_out"],
)
"""


@pytest.mark.parametrize(
    "lora", [None, {"r": 2, "alpha": 4, "dropout": 0.2}], ids=["whole", "LoRA with dropout"]
)
def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one(tmp_path, lora):
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "max_tokens": 32, "lora": lora}
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    given = {"base": str(BASE), "texts": TEXTS, "held_out": HELD_OUT, "spec": settings,
             "out": str(killed), "last": 5}  # fmt: skip
    child = programs.run(KILLED, json.dumps(given))
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert not (killed / "facts.json").exists()
    # A kill while the trainer was saving leaves a folder without its state.
    (killed / "training" / "checkpoint-5").mkdir(exist_ok=True)
    (killed / "training" / "checkpoint-5" / "trainer_state.json").unlink(missing_ok=True)
    steps = []
    resumed = tune(killed, progress=lambda done, _: steps.append(done), **settings)
    assert steps == [5, 6]
    expected = tune(undisturbed, **settings)
    names = "adapter_model.safetensors" if lora else "model.safetensors"
    assert (killed / names).read_bytes() == (undisturbed / names).read_bytes()
    assert resumed | {"seconds": 0} == expected | {"seconds": 0}
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in undisturbed.iterdir())


def test_what_another_training_left_is_not_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)

    def stop(done, _):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "out", progress=stop)
    assert list((tmp_path / "out" / "training").glob("checkpoint-*"))
    steps = []
    tune(tmp_path / "out", seed=1, progress=lambda done, _: steps.append(done))
    assert steps[0] == 1


@pytest.mark.parametrize(
    ("gpus", "is_quantized", "expected"),
    [(0, False, None), (0, True, None), (1, False, None), (1, True, {"": 0}), (2, False, "auto"),
     (2, True, "auto")],
)  # fmt: skip
def test_a_model_is_spread_over_the_gpus_that_there_are(monkeypatch, gpus, is_quantized, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert device_map(is_quantized) == expected


def test_a_checkpoint_is_measured_by_an_output_layer_that_is_known(tmp_path, monkeypatch):
    """With dropout on, what follows it cannot be found out, and all logits are kept."""
    base = save_tiny(tmp_path / "base", resid_pdrop=0.3, embd_pdrop=0.3)
    model = AutoModelForCausalLM.from_pretrained(base).train()
    known = []

    def noting(answers, _):
        known.append((answers.head.after, answers.model.training))
        return 0.0

    monkeypatch.setattr(train_target, "mean_loss", noting)
    plan = SimpleNamespace(training=None, members=[], held_out=[])
    train_target._likelihood(plan, model, AutoTokenizer.from_pretrained(base))()
    assert known == [(After(), False)] * 2
    assert model.training


def test_a_base_whose_settings_of_generation_contradict_each_other_is_saved():
    config = GenerationConfig(eos_token_id=5, do_sample=False)
    config.top_p = 0.9
    model = SimpleNamespace(generation_config=config)
    make_savable(model)
    model.generation_config.validate(strict=True)
    assert model.generation_config.eos_token_id == 5
    kept = model.generation_config
    make_savable(model)
    assert model.generation_config is kept
