"""Diffusion models in 8 bits: no image's answer hangs on another image, and no caption's on another
caption. And what was saved quantized is refused, or moved, by the device."""

from __future__ import annotations

import re

import pytest
import torch
import transformers
from quantized_models import set_quantization
from small_image_models import save_pipeline, unet

from raymia.models.denoisers.model import Denoiser, load_denoiser, put_on
from raymia.models.denoisers.one_by_one import asked_one_by_one
from raymia.models.denoisers.path import Diffusion
from raymia.models.image_source import ImageModel, resolve_image_model
from raymia.prepare.generate_images import generate_images
from raymia.questions.base import Item
from raymia.questions.images import DenoisingQuestion
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

INT8 = {"quant_method": "bitsandbytes", "load_in_8bit": True}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
CAPTIONS = ["a cat", "a dog on a mat", "mat mat mat mat", ""]


def resolved(folder, *, on_gpu=True, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_image_model(spec, "targets[0].model", on_gpu=on_gpu)


def save_with_int8_text_encoder(folder):
    """A pipeline whose text encoder has outliers, which LLM.int8 looks for in the whole batch."""
    pipe = save_pipeline("stable", folder).pipeline
    for name, weight in pipe.text_encoder.named_parameters():
        if re.search(r"layer_norm\d\.weight", name):
            weight.data *= 4
    place = folder / "text_encoder"
    pipe.text_encoder.save_pretrained(place)
    settings = transformers.BitsAndBytesConfig(load_in_8bit=True)
    transformers.CLIPTextModel.from_pretrained(
        place, quantization_config=settings, dtype=torch.float32
    ).save_pretrained(place)
    return folder


def test_what_an_int8_text_encoder_says_of_a_caption_hangs_on_no_other(tmp_path):
    checkpoint = resolved(save_with_int8_text_encoder(tmp_path), on_gpu=False)
    assert (checkpoint.one_by_one, checkpoint.reads_one_by_one) == (False, True)
    model = load_denoiser(checkpoint, batch_images=4)
    together = model.embed(CAPTIONS)["encoder_hidden_states"]
    model.embed.forget()
    for caption, row in zip(CAPTIONS, together, strict=True):
        (alone,) = model.embed([caption])["encoder_hidden_states"]
        torch.testing.assert_close(row, alone, atol=0, rtol=0)
        model.embed.forget()


def key_of_batches(checkpoint):
    """The key that a model had while it was asked in batches."""
    return ImageModel.take_fingerprint(checkpoint, Once())


@pytest.mark.parametrize(
    ("part", "settings", "images", "captions"),
    [
        (None, None, False, False),
        ("unet", NF4, False, False),
        ("unet", INT8, True, False),
        ("vae", INT8, True, False),
        ("text_encoder", INT8, False, True),
    ],
)
def test_what_rounds_its_inputs_is_asked_alone_and_under_another_key(
    part, settings, images, captions, tmp_path
):
    save_pipeline("stable", tmp_path)
    if part == "text_encoder":
        save_with_int8_text_encoder(tmp_path)
    elif part is not None:
        set_quantization(tmp_path / part, settings)
    found = resolved(tmp_path)
    assert (found.one_by_one, found.reads_one_by_one) == (images, captions)
    assert found.loader(PoolSpec(batch_images=8)).batch_images == (1 if images else 8)
    assert (found.fingerprint != key_of_batches(found)) == (images or captions)
    said = [*asked_one_by_one({"tuned": found})]
    assert [line.split(",")[0] for line in said] == [
        *(["tuned: asked about one image at a time"] if images else []),
        *(["tuned: captions are read one at a time"] if captions else []),
    ]


def test_of_what_is_quantized_here_int8_is_asked_alone_and_nf4_in_batches(tmp_path):
    save_pipeline("ddpm", tmp_path)
    int8, nf4 = (resolved(tmp_path, quantization=kind) for kind in ("int8", "nf4"))
    assert (int8.one_by_one, nf4.one_by_one) == (True, False)
    assert int8.fingerprint != key_of_batches(int8)
    assert nf4.fingerprint == key_of_batches(nf4)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_pass_of_such_a_model_is_about_one_image_at_one_timestep(one_by_one):
    passes = []

    def network(noisy, timesteps, _):
        passes.append((len(noisy), len(timesteps)))
        return noisy

    shape = (1, 8, 8)
    model = Denoiser(
        network, Diffusion(torch.linspace(0.99, 0.01, 1000, dtype=torch.float64), "epsilon"),
        shape=shape, latent_shape=shape, batch_images=8, one_by_one=one_by_one,
    )  # fmt: skip
    items = [Item(f"record-{n}", 0, {"pixels": bytes([n]) * 64}) for n in range(3)]
    DenoisingQuestion(0, None, (100, 500), 2, "shared").ask(model.with_batches(4, None), items)
    generate_images(model, range(3), seed=0, steps=2, batch=3, progress=lambda *_: None)
    assert ({*passes} == {(1, 1)}) == one_by_one


# --------------------------------------------------------------------------- devices


@pytest.mark.parametrize("part", ["unet", "vae"])
@pytest.mark.parametrize(("settings", "kind"), [(INT8, "int8"), (NF4, "nf4")])
def test_what_bitsandbytes_saved_of_diffusers_is_refused_without_a_gpu(
    part, settings, kind, tmp_path
):
    save_pipeline("stable", tmp_path)
    set_quantization(tmp_path / part, settings)
    resolved(tmp_path)
    with pytest.raises(InputError) as caught:
        resolved(tmp_path, on_gpu=False)
    assert caught.value.problems == [
        f"targets[0].model: {tmp_path / part} was saved quantized ({kind}), which diffusers reads "
        "on GPUs alone; give the pool a GPU (gpus under resources), or the model that it was made "
        "from"
    ]


def test_a_network_is_moved_to_where_it_is_asked_unless_bitsandbytes_put_it_there():
    there = torch.device("meta")
    for quantized, moved in ((None, True), ("torchao", True), ("int8", False), ("nf4", False)):
        network = put_on(there, unet(), quantized, memory_format=torch.channels_last)
        assert {one.device == there for one in network.parameters()} == {moved}
