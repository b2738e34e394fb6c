"""Training a LoRA of a diffusion model: what it learns, what it saves, and that a kill changes
nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from small_families import save_family
from small_image_models import save_model, save_pipeline

from raymia.models.denoisers.lora_files import BY_DIFFUSERS
from raymia.models.denoisers.model import load_denoiser
from raymia.models.image_source import resolve_image_model
from raymia.prepare import denoiser_files
from raymia.prepare import train_denoiser as module
from raymia.prepare.captioned import Captioned
from raymia.prepare.denoiser_files import fresh_pipeline, resolve_trainable
from raymia.prepare.denoiser_lora import lora_settings
from raymia.prepare.train_denoiser import train_denoiser
from raymia.prepare.training_state import STATE_FILE
from raymia.spec import ModelSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.spec.methods import DoraMethod, LoraMethod
from raymia.util.draws import generator
from raymia.util.errors import InputError

CAPTIONS = ("a cat", "a dog", "a cat on a mat", "", "dog", "mat")
PIXELS = generator(0, "images").integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
MEMBERS, HELD_OUT = Captioned(PIXELS[:4], CAPTIONS[:4]), Captioned(PIXELS[4:], CAPTIONS[4:])
LORA = LoraMethod(r=2, lora_alpha=4)
GREY, OTHER_GREY = Captioned(PIXELS[:4, :1, :8, :8]), Captioned(PIXELS[4:, :1, :8, :8])
ON_CONVOLUTIONS = LoraMethod(r=2, lora_alpha=4, target_modules=["conv1", "conv_out"])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "base"
    save_pipeline("stable", folder)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A base in pixels, without captions."""
    folder = tmp_path_factory.mktemp("models") / "plain"
    fresh_pipeline(folder, (1, 8, 8), channels=(8, 16), attention=False)
    return folder


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(base, folder)
    return folder


def train(base, out, members=MEMBERS, *, method=LORA, seed=0, progress=None, **options):
    changes = {k: options.pop(k) for k in list(options) if k in DiffusionTrainingSpec.model_fields}
    quick = {"steps": 2, "batch_size": 2, "learning_rate": 3e-2, "warmup": 1, **changes}
    return train_denoiser(
        members,
        base,
        DiffusionTrainingSpec(**quick),
        out,
        seed=seed,
        progress=progress or (lambda *_: None),
        lora=lora_settings(method, resolve_trainable(base, is_frozen=True)),
        **{"measure_on": HELD_OUT, **options},
    )


def weights(folder):
    return load_file(folder / BY_DIFFUSERS)


def resolved(base, adapter=None):
    named = None if adapter is None else str(adapter)
    return resolve_image_model(ModelSpec(model=str(base), adapter=named), "m", on_gpu=False)


def answered(base, adapter=None, captions=("a cat", "dog")):
    model = load_denoiser(resolved(base, adapter), batch_images=4)
    noisy = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(1))
    return model.predict_noise(noisy, model.at([100, 700]), captions)


FLOWS = ("sd3", "flux_schnell", "aura_flow", "lumina2", "sana")


@pytest.mark.parametrize("kind", ["stable", "sdxl", *FLOWS])
def test_it_is_read_by_diffusers_as_it_is_here(kind, tmp_path):
    save = save_pipeline if kind == "stable" else save_family
    save(kind, tmp_path / "base")
    # The attention of a small AuraFlow hardly changes its answer.
    more = {"steps": 30, "learning_rate": 0.3} if kind == "aura_flow" else {}
    facts = train(tmp_path / "base", tmp_path / "out", **more)
    assert facts["prediction_type"] == ("flow" if kind in FLOWS else "epsilon")
    opened = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "base")
    opened.load_lora_weights(str(tmp_path / "out"))
    opened.fuse_lora()
    opened.unload_lora_weights()
    opened.save_pretrained(tmp_path / "fused")
    bare, here, there = (
        answered(tmp_path / folder, adapter)
        for folder, adapter in (("base", None), ("base", tmp_path / "out"), ("fused", None))
    )
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    assert (here - bare).abs().max() > 1e-2


def test_that_of_pixart_which_diffusers_reads_no_lora_of_is_what_peft_puts_there(tmp_path):
    save_family("pixart", tmp_path / "base")
    train(tmp_path / "base", tmp_path / "out")
    pipe = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "base")
    settings = lora_settings(LORA, resolve_trainable(tmp_path / "base", is_frozen=True))
    model = get_peft_model(pipe.transformer, LoraConfig(**settings))
    start = "base_model.model."
    states = {n.replace("transformer.", start, 1): v for n, v in weights(tmp_path / "out").items()}
    assert not set_peft_model_state_dict(model, states).unexpected_keys
    pipe.transformer = model.merge_and_unload()
    pipe.save_pretrained(tmp_path / "fused")
    bare, here, there = (
        answered(tmp_path / folder, adapter)
        for folder, adapter in (("base", None), ("base", tmp_path / "out"), ("fused", None))
    )
    torch.testing.assert_close(here, there, atol=1e-4, rtol=1e-4)
    assert (here - bare).abs().max() > 1e-2


def test_it_has_the_shape_that_was_asked_for_in_the_file_and_in_its_header(tmp_path, base):
    method = DoraMethod(kind="dora", r=3, lora_alpha=6, target_modules=["to_q", "ff.net.2"])
    train(base, tmp_path, method=method)
    placed = resolved(base, tmp_path).adapters[0].placed
    assert {one.path.rpartition("transformer_blocks.0.")[2] for one in placed} == {
        "attn1.to_q", "attn2.to_q", "ff.net.2",
    }  # fmt: skip
    assert {(one.weights.rank, one.weights.scale) for one in placed} == {(3, 2.0)}
    assert all("magnitude" in one.weights.tensors for one in placed)
    with safe_open(tmp_path / BY_DIFFUSERS, framework="pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
    assert header["unet.lora_alpha"] == 6


def test_loss_falls_on_members_and_is_said_of_both_at_each_checkpoint(tmp_path, plain):
    facts = train(plain, tmp_path, GREY, measure_on=OTHER_GREY, method=ON_CONVOLUTIONS,
                  steps=20, batch_size=4, checkpoint_every=10)  # fmt: skip
    losses = [checkpoint["train_loss"] for checkpoint in facts["checkpoints"]]
    assert losses[1] < losses[0]
    assert all(checkpoint["held_out_loss"] > 0 for checkpoint in facts["checkpoints"])
    assert facts["parameters"] == sum(
        v.numel() for v in weights(tmp_path / "checkpoint-20").values()
    )
    assert facts["prediction_type"] == "epsilon"
    assert not (tmp_path / STATE_FILE).exists()


def test_a_killed_training_ends_with_the_same_file(tmp_path, plain, monkeypatch):
    monkeypatch.setattr(module, "STATE_EVERY", 2)

    def stop(done, _):
        if done == 3:
            raise KeyboardInterrupt

    method = ON_CONVOLUTIONS.model_copy(update={"lora_dropout": 0.2})
    options = {"steps": 4, "ema": 0.9, "flip": True, "method": method, "measure_on": OTHER_GREY}
    whole = train(plain, tmp_path / "whole", GREY, **options)
    with pytest.raises(KeyboardInterrupt):
        train(plain, tmp_path / "killed", GREY, progress=stop, **options)
    assert (tmp_path / "killed" / STATE_FILE).exists()
    killed = train(plain, tmp_path / "killed", GREY, **options)
    assert {**whole, "seconds": 0} == {**killed, "seconds": 0}
    files = [(tmp_path / name / BY_DIFFUSERS).read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert train(plain, tmp_path / "whole", GREY, **options) == whole  # which trains nothing


@pytest.mark.parametrize(
    "changes",
    [
        {"members": Captioned(PIXELS[:4], CAPTIONS[2:])},
        {"method": LoraMethod(r=2, lora_alpha=8)},
        {"seed": 1},
    ],
    ids=["captions", "alpha", "seed"],
)
def test_another_training_is_not_taken_for_it(trained, base, changes):
    with pytest.raises(InputError, match="is of a training with other images, settings, seed"):
        train(base, trained, **changes)


def test_captions_are_what_it_is_trained_on(tmp_path, trained, base):
    train(base, tmp_path, Captioned(PIXELS[:4], CAPTIONS[2:]))
    first, second = weights(trained), weights(tmp_path)
    assert not all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_a_base_in_bfloat16_has_an_adapter_in_float32(tmp_path, base, monkeypatch):
    """As on a GPU."""
    real = denoiser_files.resolve_trainable

    def halved(*args, **options):
        return replace(real(*args, **options), dtype="bfloat16")

    monkeypatch.setattr(denoiser_files, "resolve_trainable", halved)
    facts = train(base, tmp_path)
    assert facts["train_loss"] < 3
    assert {value.dtype for value in weights(tmp_path).values()} == {torch.float32}
    assert all(value.abs().max() > 0 for value in weights(tmp_path).values())


def test_a_training_that_diverges_stops_with_the_step_and_what_to_try(tmp_path, plain):
    with pytest.raises(InputError, match=r"step \d+: .* diverged.* smaller learning_rate"):
        train(plain, tmp_path, GREY, measure_on=OTHER_GREY, method=ON_CONVOLUTIONS,
              learning_rate=1e6, steps=8)  # fmt: skip
    assert not (tmp_path / BY_DIFFUSERS).exists()


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["to_q", "to_kk"], r"no 'to_kk'; near it are to_k"),
        (["attn1.to_w"], r"no 'attn1.to_w'; near it are attn1.to_"),
        (["query_key_value"], r"no 'query_key_value'; its modules end in conv_in, .*to_q"),
    ],
)
def test_modules_that_are_not_there_are_told_the_nearest(base, modules, message):
    with pytest.raises(InputError, match=message):
        lora_settings(LoraMethod(target_modules=modules), resolve_trainable(base))


def test_a_network_without_attention_wants_modules_named(tmp_path):
    fresh_pipeline(tmp_path, (1, 8, 8), channels=(8, 8), attention=False)
    with pytest.raises(InputError, match=r"no attention as others do .* name some of its modules"):
        lora_settings(LORA, resolve_trainable(tmp_path))


def test_what_cannot_be_told_a_caption_is_refused(tmp_path):
    save_model("ddpm", tmp_path / "base")
    grey = Captioned(PIXELS[:4, :1], CAPTIONS[:4])
    with pytest.raises(InputError, match="has no text encoder, so that it cannot be told one"):
        train(tmp_path / "base", tmp_path / "out", grey, measure_on=grey,
              method=LoraMethod(target_modules=["conv1"]))  # fmt: skip
    with pytest.raises(InputError, match="members and held-out images should both have some"):
        train(tmp_path / "base", tmp_path / "out", grey, measure_on=grey.pixels,
              method=LoraMethod(target_modules=["conv1"]))  # fmt: skip
