"""Families of diffusion models: each answers as diffusers' own call, or is refused by its name."""

from __future__ import annotations

import inspect
import re

import diffusers
import numpy as np
import pytest
import torch
from edited import edit
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from small_families import FAMILIES, save_family, table, written
from small_image_models import plain_images, plain_latents, save_pipeline
from small_loras import TEXT, adapted, save_by_kohya
from torch import nn

from raymia.models.denoisers.as_trained import as_trained, check_resolution
from raymia.models.denoisers.model import load_denoiser
from raymia.models.denoisers.original_names import original_name
from raymia.models.image_source import resolve_image_model
from raymia.prepare.generate_images import generate_images
from raymia.prepare.train_denoiser import train_denoiser
from raymia.spec import ModelSpec, PoolSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

CAPTIONS = ["a cat", "", "a dog on a mat " * 120]
"""The last has more words than any text encoder reads."""
TIMESTEPS = torch.tensor([10, 200, 700])
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def resolved(folder, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_image_model(spec, "targets[0].model", on_gpu=False)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_answers_as_diffusers_own_call(kind, tmp_path):
    family = save_family(kind, tmp_path)
    checkpoint = resolved(tmp_path)
    model = load_denoiser(checkpoint, batch_images=4)
    images = torch.rand(3, *checkpoint.shape)
    latents = model.encode(images)
    assert latents.shape[1:] == checkpoint.latent_shape
    torch.testing.assert_close(latents, plain_latents(family.pipeline, images), **CLOSE)
    shown = plain_images(family.pipeline, latents)
    torch.testing.assert_close(model.decode(latents), shown, **CLOSE)
    found, expected = compared(model, family, latents)
    torch.testing.assert_close(found, expected, **CLOSE)
    alone = model.predict_noise(latents[2:], TIMESTEPS[2:], CAPTIONS[2:])
    torch.testing.assert_close(alone, found[2:], atol=1e-5, rtol=1e-4)
    assert checkpoint.loader(PoolSpec()).memory(Once()) is not None
    if checkpoint.is_captioned:
        other = model.predict_noise(latents, TIMESTEPS, ["a mat"] * 3)
        assert (other - found).abs().max() > 1e-5, "no caption was read"


@pytest.mark.parametrize("kind", FAMILIES)
def test_at_another_size_a_family_answers_as_diffusers_own_call(kind, tmp_path):
    """Which SDXL and PixArt are told, and in which FLUX.1 and others tell places apart."""
    family = save_family(kind, tmp_path)
    checkpoint = as_trained(resolved(tmp_path), None, (32, 24))
    model = load_denoiser(checkpoint, batch_images=4)
    latents = model.encode(torch.rand(3, *checkpoint.shape))
    assert latents.shape[1:] == checkpoint.latent_shape
    found, expected = compared(model, family, latents)
    torch.testing.assert_close(found, expected, **CLOSE)


def compared(model, family, noisy):
    """The noise that a model sees, and what follows from what the family's network says."""
    times = TIMESTEPS.float() if family.is_flow else TIMESTEPS
    expected = family.output(noisy, times, CAPTIONS)
    if family.is_flow:
        share = (times / 1000).reshape(-1, 1, 1, 1)
        expected = noisy + (1 - share) * expected
    return model.predict_noise(noisy, times, CAPTIONS), expected


@pytest.mark.parametrize("kind", ["sd3", "aura_flow"])
def test_a_size_that_a_network_has_no_positions_for_is_refused(kind, tmp_path):
    save_family(kind, tmp_path)
    check_resolution(resolved(tmp_path), 32, "resolution")
    with pytest.raises(InputError, match="positions for images of up to 32 x 32, but got 36"):
        check_resolution(resolved(tmp_path), 36, "resolution")


@pytest.mark.long
def test_the_table_of_families_is_what_is_read():
    """If this fails, `PYTHONPATH=. python tests/support/small_families.py` writes it anew."""
    assert table().split("\n") == [*written().strip("\n").split("\n"), ""]


def test_every_text_encoder_of_sdxl_and_flux_is_read(tmp_path):
    for kind, parts in (("sdxl", 2), ("flux", 2), ("sd3", 3), ("sd3_without_t5", 2)):
        save_family(kind, tmp_path / kind)
        assert len(resolved(tmp_path / kind).text_encoders) == parts


@pytest.mark.training
@pytest.mark.parametrize("kind", ["sdxl", "pixart", "sd3", "flux"])
def test_a_family_generates_and_is_trained_as_a_reference_is(kind, tmp_path):
    save_family(kind, tmp_path / "target")
    target = load_denoiser(resolved(tmp_path / "target"), batch_images=4)
    settings = {"steps": 3, "batch": 2, "seed": 0, "progress": lambda *_: None}
    images = generate_images(target, range(4), **settings)
    training = DiffusionTrainingSpec(steps=2, batch_size=2, warmup=1)
    out = tmp_path / "reference"
    train_denoiser(
        images, tmp_path / "target", training, out, seed=0, progress=lambda *_: None,
        measure_on=images[:2], from_weights=True,
    )  # fmt: skip
    reference = load_denoiser(resolved(out), batch_images=4)
    assert not np.array_equal(generate_images(reference, range(4), **settings), images)


# ---------------------------------------------------------------------- adapters

ORIGINALLY = {
    "down_blocks_1_attentions_0": "input_blocks_3_1", "mid_block_attentions_0": "middle_block_1",
    "up_blocks_0_attentions_0": "output_blocks_0_1",
    "up_blocks_0_attentions_1": "output_blocks_1_1",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("how", ["kohya", "diffusers"])
def test_a_lora_on_sdxl_and_its_text_encoders_answers_as_diffusers_fuses_it(how, tmp_path):
    pipeline = save_family("sdxl", tmp_path / "base").pipeline
    place = tmp_path / "l.safetensors"
    models = {"unet": adapted(pipeline.unet, ["to_q", "to_v"], 1)}
    for seed, name in enumerate(("text_encoder", "text_encoder_2")):
        models[name] = adapted(getattr(pipeline, name), TEXT, 2 + seed)
    if how == "kohya":
        save_by_kohya(place, *models.values())
        tensors = load_file(place)
        for name, original in ORIGINALLY.items():
            tensors = {key.replace(name, original): value for key, value in tensors.items()}
        assert not any("attentions" in key for key in tensors)
        save_file(tensors, place)
    else:
        states = {f"{n}_lora_layers": get_peft_model_state_dict(m) for n, m in models.items()}
        type(pipeline).save_lora_weights(place.parent, **states, weight_name=place.name)
    fused = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "base")
    fused.load_lora_weights(str(place))
    fused.fuse_lora()
    fused.unload_lora_weights()
    fused.save_pretrained(tmp_path / "fused")
    model, other, bare = (
        load_denoiser(resolved(tmp_path / base, **more), batch_images=4)
        for base, more in (("base", {"adapter": str(place)}), ("fused", {}), ("base", {}))
    )
    noisy = torch.randn(3, *model.latent_shape)
    found, expected, before = (
        m.predict_noise(noisy, TIMESTEPS, CAPTIONS) for m in (model, other, bare)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found - before).abs().max() > 1e-2
    parts = {one.weights.part for one in resolved(tmp_path / "base", adapter=str(place)).placed}
    assert parts == {"", "text_encoder", "text_encoder_2"}


def test_original_names_are_those_that_diffusers_reads():
    """Of all modules of a UNet that attends at some resolutions and not at others."""
    network = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=2,
        block_out_channels=(8, 8, 8), norm_num_groups=4, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        up_block_types=(*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
    )  # fmt: skip
    paths = [n for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    # Of what lies beside the blocks, and of projections of the time, diffusers knows other names.
    paths = [p for p in paths if "blocks" in p or "mid_block" in p]
    names = {p: original_name(p, paths).replace(".", "_") for p in paths if "emb" not in p}
    assert len({*names.values()}) == len(names)
    halves = ("lora_down", "lora_up")
    file = {f"lora_unet_{n}.{h}.weight": torch.ones(1, 1) for n in names.values() for h in halves}
    read, _ = diffusers.StableDiffusionXLPipeline.lora_state_dict(file, unet_config=network.config)
    found = {_path(key) for key in read if key.endswith(".down.weight")}
    assert found == {*names}


def _path(key: str) -> str:
    key = re.sub(r"(_lora|\.lora)\.down\.weight$", "", key.removeprefix("unet."))
    return key.replace(".processor", "").replace(".to_out", ".to_out.0")


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("sd3", ["to_q", "add_v_proj", "to_out.0"]),
        ("flux", ["to_k", "proj_mlp"]),
        ("aura_flow", ["to_q", "linear_1"]),
        ("pixart", ["proj_in", "linear_1"]),
        ("lumina2", ["to_k", "linear_2"]),
        ("sana", ["to_q", "linear_1"]),
    ],
)
def test_a_lora_of_a_transformer_answers_as_it_was_trained(kind, targets, tmp_path):
    family = save_family(kind, tmp_path / "base")
    model = load_denoiser(resolved(tmp_path / "base"), batch_images=4)
    noisy = torch.randn(3, *model.latent_shape)
    before = model.predict_noise(noisy, TIMESTEPS, CAPTIONS)
    adapted(family.pipeline.transformer, targets, seed=1, lora_alpha=4)  # as the rank
    states = get_peft_model_state_dict(family.pipeline.transformer)
    (tmp_path / "lora").mkdir()
    save_file(
        {f"transformer.{name}": value.contiguous() for name, value in states.items()},
        tmp_path / "lora" / "pytorch_lora_weights.safetensors",
    )
    checkpoint = resolved(tmp_path / "base", adapter=str(tmp_path / "lora"))
    found, expected = compared(load_denoiser(checkpoint, batch_images=4), family, noisy)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found - before).abs().max() > 1e-2


# ---------------------------------------------------------------------- refusals


def test_what_is_published_once_more_beside_a_pipeline_is_no_adapter_and_takes_no_memory(tmp_path):
    save_family("flux", tmp_path)
    before = resolved(tmp_path).loader(PoolSpec()).memory(Once())
    tensors = {"flux1-dev": "double_blocks.0.img_attn.qkv.weight", "ae": "encoder.down.0.weight",
               "sd_xl_offset_example-lora_1.0": "lora_unet_mid_block.alpha"}  # fmt: skip
    for name, tensor in tensors.items():
        save_file({tensor: torch.ones(64, 64)}, tmp_path / f"{name}.safetensors")
    assert resolved(tmp_path).loader(PoolSpec()).memory(Once()) == before
    adapter = {"double_blocks.0.processor.qkv_lora1.down.weight": torch.ones(4, 4)}
    save_file(adapter, tmp_path / "mine.safetensors")
    with pytest.raises(InputError, match=r"holds mine\.safetensors beside the weights"):
        resolved(tmp_path)


@pytest.mark.long
def test_every_flow_pipeline_of_diffusers_is_read_or_refused_by_its_name(tmp_path):
    """Those that are one transformer with a FlowMatch scheduler, also of videos and sounds."""
    folders, others = {}, tmp_path / "dit"
    save_pipeline("dit", others)
    for kind in ("sd3", "flux", "aura_flow", "lumina2", "sana"):
        family = save_family(kind, tmp_path / kind)
        folders[type(family.pipeline.transformer).__name__] = tmp_path / kind
    read = set()
    for pipeline, network, further in flow_pipelines():
        folder = folders.get(network, others)
        edit(folder / "model_index.json", _class_name=pipeline, controlnet=further)
        edit(folder / "transformer" / "config.json", _class_name=network)
        try:
            assert resolved(folder).network.kind == network
            read.add(pipeline)
        except InputError as error:
            (said,) = error.problems
            assert f"is {pipeline}, " in said, said
            assert network in said, said
            assert folder == others or further or "Kontext" in pipeline, said
    assert read >= {"StableDiffusion3Pipeline", "FluxPipeline", "AuraFlowPipeline",
                    "Lumina2Pipeline", "SanaPAGPipeline"}  # fmt: skip
    assert not [name for name in read if "ControlNet" in name or "Kontext" in name]


def flow_pipelines():
    """Each pipeline's class, that of its network, and its ControlNet as an index has one."""
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
        given = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
        parts = {part: str(given[part].annotation) for part in given}
        network = re.findall(r"\w*(?:Transformer|DiT)\w*", parts.get("transformer", ""))
        if network and "FlowMatch" in parts.get("scheduler", ""):
            yield name, network[-1], ["diffusers", "A"] if "controlnet" in parts else None


@pytest.mark.parametrize(
    ("kind", "part", "changes", "why"),
    [
        ("sd3", "model_index.json", {"text_encoder_2": [None, None]}, "StableDiffusion3Pipeline "
         "without text_encoder_2, which Stable Diffusion 3 reads captions with"),
        ("flux", "model_index.json", {"text_encoder_2": ["transformers", "Gemma2Model"]}, "FluxPipe"
         "line, whose text_encoder_2 is a Gemma2Model; raymia reads captions of FLUX.1 with a T5"),
        ("sd3", "scheduler/scheduler_config.json", {"_class_name": "DDPMScheduler"}, "Stable "
         "Diffusion 3 was trained by flow matching"),
        ("flux", "transformer/config.json", {"in_channels": 32}, "takes 32 channels, and the "
         "pipeline's latents have 4"),
        ("flux", "transformer/config.json", {"_class_name": "Flux2Transformer2DModel"}, "whose "
         "network is a Flux2Transformer2DModel"),
        ("flux", "model_index.json", {"_class_name": "FluxKontextPipeline"}, "FluxKontextPipeline, "
         "whose network, a FluxTransformer2DModel, is told of a further image"),
        ("sana", "transformer/config.json", {"guidance_embeds": True}, "a guidance scale, as a "
         "distilled model's is (guidance_embeds: True)"),
        ("sana", "vae/config.json", {"_class_name": "AutoencoderKLWan"}, "raymia encodes with"),
        ("lumina2", "model_index.json", {"text_encoder": ["transformers", "GemmaModel"]}, "whose "
         "text_encoder is a GemmaModel; raymia reads captions of Lumina 2 with a Gemma2Model"),
        ("sdxl", "unet/config.json", {"time_cond_proj_dim": 256}, "a guidance scale"),
    ],
)  # fmt: skip
def test_what_a_family_lacks_is_refused_by_its_name(kind, part, changes, why, tmp_path):
    save_family(kind, tmp_path)
    edit(tmp_path / part, **changes)
    with pytest.raises(InputError) as caught:
        resolved(tmp_path)
    assert why in caught.value.problems[0]
