"""A model of images that is given as one file: read by the configs of a folder, as diffusers does,
or refused with what to do, before anything is loaded."""

from __future__ import annotations

import json
import os
import shutil

import diffusers
import pytest
import torch
import yaml
from edited import edit
from original_files import (
    FLUX_ENCODERS,
    flux_transformer,
    ldm_vae,
    save_whole,
    states_of,
    text_encoders,
    without_weights,
)
from safetensors.torch import load_file, save_file
from small_families import save_family
from small_image_models import save_pipeline
from small_images import picture, save
from small_loras import adapted, save_by_kohya

from raymia.modalities.resolve import resolve_inputs
from raymia.models.denoisers.as_trained import as_trained, check_marks
from raymia.models.denoisers.captions import load_text_encoder
from raymia.models.denoisers.model import load_denoiser
from raymia.models.denoisers.parts import Part
from raymia.models.denoisers.query import Told
from raymia.models.image_source import resolve_image_model
from raymia.models.original_layout import headers_of, parts_in
from raymia.spec import ModelSpec, PoolSpec
from raymia.spec.file import load_spec, parse_spec
from raymia.util.errors import InputError
from raymia.util.once import Once

CAPTIONS, TIMESTEPS = ["a cat", "", "a dog on a mat"], torch.tensor([10, 200, 700])


def by_config(file, folder, **more):
    spec = ModelSpec(model=str(file), config=str(folder), **more)
    return resolve_image_model(spec, "targets[0].model", on_gpu=False)


def answers(checkpoint):
    model = load_denoiser(checkpoint, batch_images=4)
    generator = torch.Generator().manual_seed(0)
    latents = model.encode(torch.rand(3, *checkpoint.shape, generator=generator))
    return torch.cat([latents, model.predict_noise(latents, TIMESTEPS, CAPTIONS)])


@pytest.mark.parametrize(
    ("kind", "pipeline", "kept"),
    [
        ("stable", "StableDiffusionPipeline", ()),
        ("sdxl", "StableDiffusionXLPipeline", ()),
        ("sd3", "StableDiffusion3Pipeline",
         ("text_encoder", "text_encoder_2", "text_encoder_3")),
    ],
)  # fmt: skip
def test_one_file_answers_as_diffusers_reads_it(kind, pipeline, kept, tmp_path):
    (file, pipe), folder = save_whole(kind, tmp_path), tmp_path / "pipeline"
    in_folder = resolve_image_model(ModelSpec(model=str(folder)), "whole", on_gpu=False)
    expected = answers(in_folder)
    without_weights(folder)
    found = by_config(file, folder)
    assert found.parameters == in_folder.parameters
    assert found.loader(PoolSpec()).memory(Once()).weights > 4 * found.parameters
    torch.testing.assert_close(answers(found), expected, atol=1e-5, rtol=1e-4)
    read = getattr(diffusers, pipeline).from_single_file(
        str(file), config=str(folder), local_files_only=True,
        **{name: getattr(pipe, name) for name in kept},
    )  # fmt: skip
    read.save_pretrained(tmp_path / "by_diffusers")
    spec = ModelSpec(model=str(tmp_path / "by_diffusers"))
    by_diffusers = resolve_image_model(spec, "by diffusers", on_gpu=False)
    torch.testing.assert_close(answers(found), answers(by_diffusers), atol=1e-5, rtol=1e-4)


def save_flux(folder, width_in_heads, dtype):
    """A FLUX.1 in ``folder/pipeline``, and all of it in one file of its authors' layout."""
    pipe = save_family("flux", folder / "pipeline").pipeline
    config = {**pipe.transformer.config, "num_attention_heads": width_in_heads}
    network = diffusers.FluxTransformer2DModel.from_config(config).to(dtype)
    network.save_pretrained(folder / "pipeline" / "transformer")
    file = folder / "flux.safetensors"
    save_file(flux_tensors(pipe, network.state_dict()), file)
    return file


def flux_tensors(pipe, network):
    states = states_of(pipe)
    parts = [flux_transformer(network), ldm_vae(states["vae"])]
    parts += text_encoders(states, FLUX_ENCODERS)
    return {name: tensor.contiguous() for part in parts for name, tensor in part}


def test_a_flux_of_another_width_than_diffusers_reads_in_one_file_is_refused(tmp_path):
    file, folder = save_flux(tmp_path, 2, torch.float32), tmp_path / "pipeline"
    said = refusal(by_config, file, folder)
    assert "diffusers does not read the FluxTransformer2DModel of its transformer out of" in said
    assert "or save the pipeline as a folder, and name that as `model`" in said


def test_each_tensor_of_a_flux_of_the_width_that_is_shared_has_its_place_by_its_header(tmp_path):
    pipe = save_family("flux", tmp_path).pipeline
    config = {**pipe.transformer.config, "num_attention_heads": 3_072 // 16}
    with torch.device("meta"):
        network = diffusers.FluxTransformer2DModel.from_config(config)
    pipe.save_pretrained(tmp_path / "pipeline")
    file = hollow_file(tmp_path / "flux.safetensors", flux_tensors(pipe, network.state_dict()))
    kinds = [("transformer", "FluxTransformer2DModel"), ("vae", "AutoencoderKL"),
             ("text_encoder", "CLIPTextModel"), ("text_encoder_2", "T5EncoderModel")]  # fmt: skip
    assert parts_in(file, kinds, "targets[0].model") == {part for part, _ in kinds}
    found = headers_of(file, "transformer", kinds[0][1], config, "targets[0].model", Once())
    assert {name: one.shape for name, one in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
    }
    without_weights(tmp_path / "pipeline")
    edit(tmp_path / "pipeline" / "transformer" / "config.json", num_attention_heads=3_072 // 16)
    assert {part.file for part in by_config(file, tmp_path / "pipeline").text_encoders} == {
        str(file)
    }


@pytest.mark.parametrize(("part", "name"), [*FLUX_ENCODERS.items()])
def test_a_text_encoder_of_flux_reads_captions_as_in_its_folder(part, name, tmp_path):
    pipe = save_family("flux", tmp_path / "pipeline").pipeline
    kind, file = type(getattr(pipe, part)).__name__, tmp_path / "flux.safetensors"
    named = text_encoders(states_of(pipe), {part: name})
    save_file({n: t.contiguous() for some in named for n, t in some}, file)
    found = [
        load_text_encoder(tmp_path / "pipeline", one, torch.float32, torch.device("cpu"))
        for one in (Part(kind, part, None), Part(kind, part, None, file=str(file)))
    ]
    tokens = found[0].tokens(CAPTIONS, 8)[0]
    expected, read = (one.model(tokens).last_hidden_state for one in found)
    torch.testing.assert_close(read, expected, atol=0, rtol=0)


def test_a_tensor_of_a_text_encoder_that_nothing_reads_is_refused(tmp_path):
    (file, _), folder = save_whole("sd3", tmp_path), tmp_path / "pipeline"
    strange = {"text_encoders.clip_l.other": torch.ones(3)}
    save_file({**load_file(file), **strange}, file)
    assert "has no place (text_encoders.clip_l.other)" in refusal(by_config, file, folder)


@pytest.mark.slow  # a network of 0.5 billion parameters is the smallest of this width
def test_a_flux_in_one_file_answers_as_in_its_folder(tmp_path):
    file, folder = save_flux(tmp_path, 3_072 // 16, torch.bfloat16), tmp_path / "pipeline"
    in_folder = resolve_image_model(ModelSpec(model=str(folder)), "whole", on_gpu=False)
    expected = answers(in_folder)
    without_weights(folder)
    torch.testing.assert_close(answers(by_config(file, folder)), expected, atol=1e-4, rtol=1e-4)


def hollow_file(file, tensors):
    """A safetensors file of 16-bit numbers that are not there: its end is a hole."""
    entries, end = {}, 0
    for name, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        entries[name] = {"dtype": "BF16", "shape": [*tensor.shape], "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(file, 8 + len(header) + end)
    return file


def test_a_file_is_told_from_another_and_carries_an_adapter(tmp_path):
    (file, _), folder = save_whole("stable", tmp_path), tmp_path / "pipeline"
    plain = by_config(file, folder)
    tensors = load_file(file)
    name = "model.diffusion_model.out.2.bias"
    save_file({**tensors, name: tensors[name] + 1}, tmp_path / "other.safetensors")
    other = by_config(tmp_path / "other.safetensors", folder)
    shutil.copy(file, tmp_path / "copy.safetensors")
    assert by_config(tmp_path / "copy.safetensors", folder).fingerprint == plain.fingerprint
    assert other.fingerprint != plain.fingerprint
    assert plain.loader(PoolSpec()).sharing.joined(other.loader(PoolSpec()).sharing) is None
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    lora = save_by_kohya(tmp_path / "lora.safetensors", adapted(unet, ["to_q", "to_v"], 1))
    tuned = by_config(file, folder, adapter=str(lora))
    spec = ModelSpec(model=str(folder), adapter=str(lora))
    in_folder = resolve_image_model(spec, "in the folder", on_gpu=False)
    torch.testing.assert_close(answers(tuned), answers(in_folder), atol=1e-5, rtol=1e-4)
    assert "from_single_file" in tuned.capabilities.why_not({"generation"})[0]


def said_by(tmp_path, file):
    return refusal(by_config, file, tmp_path / "pipeline")


def test_a_file_that_is_not_what_the_configs_say_is_refused_by_headers(tmp_path):
    (file, _), folder = save_whole("stable", tmp_path), tmp_path / "pipeline"
    tensors = load_file(file)

    def changed(drop=(), **more):
        left = {n: t for n, t in tensors.items() if not n.startswith(tuple(drop))}
        save_file({**left, **more}, tmp_path / "other.safetensors")
        return said_by(tmp_path, tmp_path / "other.safetensors")

    start = "model.diffusion_model."
    assert "lack 2 of the tensors" in changed([f"{start}out.2"])
    assert "holds no denoising network" in changed([start])
    assert "of which a UNet2DConditionModel takes" in changed(
        **{f"{start}controlnet.weight": torch.ones(3)}
    )
    assert "1 tensors that belong to none of" in changed(**{"other.weight": torch.ones(3)})
    assert "name it as `adapter`" in changed(**{"lora_unet_a.lora_down.weight": torch.ones(3)})
    edit(folder / "unet" / "config.json", cross_attention_dim=32)
    assert "have other shapes than its config.json says" in said_by(tmp_path, file)
    (folder / "model_index.json").unlink()
    assert "has no model_index.json on this machine" in said_by(tmp_path, file)


def marked(file, *names, numbers=0):
    save_file({**load_file(file), **{name: torch.ones(numbers) for name in names}}, file)


def test_a_file_says_by_empty_tensors_what_its_network_predicts_and_on_which_schedule(tmp_path):
    (file, _), folder = save_whole("sdxl", tmp_path), tmp_path / "pipeline"
    diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
    without_weights(folder)
    plain = by_config(file, folder)
    before = answers(plain)
    marked(file, "v_pred", "ztsnr")
    unread = by_config(file, folder)
    torch.testing.assert_close(answers(unread), before)
    place = folder / "scheduler" / "scheduler_config.json"
    assert refusal(check_marks, unread, "tuned") == (
        f"tuned: {file} holds the empty tensor v_pred, which says `prediction: v_prediction`, and "
        'it would be read otherwise; write "prediction_type": "v_prediction" into '
        f"{place}, or say it under `training` where it is a target"
    )
    told = as_trained(unread, None, unread.query.size, Told(prediction="v_prediction"))
    said = refusal(check_marks, told, "tuned")
    assert "holds the empty tensor ztsnr, which says `zero_terminal_snr: true`" in said
    both = Told(prediction="v_prediction", zero_terminal_snr=True)
    check_marks(as_trained(unread, None, unread.query.size, both), "tuned")
    edit(place, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    check_marks(by_config(file, folder), "tuned")


def test_a_mark_is_held_against_the_scheduler_of_targets_and_references_before_a_run(tmp_path):
    (file, _), folder = save_whole("stable", tmp_path), tmp_path / "pipeline"
    marked(file, "v_pred")
    for number in range(4):
        name = ("members", "others")[number % 2]
        save(tmp_path / name / f"{number}.png", picture(number, (16, 16)))
    model = {"model": str(file), "config": str(folder)}
    spec = {
        "records": {"kind": "image", "members": "members", "non_members": "others"},
        "targets": [{"name": "tuned", **model}],
        "references": {"base": model},
        "training": {"prediction": "v_prediction"},
    }
    place = tmp_path / "audit.yaml"
    place.write_text(yaml.safe_dump(spec))
    assert refusal(resolve_inputs, load_spec(place)).startswith(f"base: {file} holds the empty")
    place.write_text(yaml.safe_dump({**spec, "references": {}}))
    assert resolve_inputs(load_spec(place)).targets["tuned"].query.told.prediction


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("v_pred", 1, "holds 1 tensors that belong to none of"),
        ("edm_vpred.sigma_max", 1, "is an EDM, as edm_vpred.sigma_max in it says, and raymia"),
    ],
)
def test_a_mark_with_a_number_in_it_and_those_of_an_edm_are_refused(name, numbers, said, tmp_path):
    (file, _), folder = save_whole("sdxl", tmp_path), tmp_path / "pipeline"
    marked(file, name, numbers=numbers)
    assert said in refusal(by_config, file, folder)


def test_a_config_beside_a_folder_is_refused(tmp_path):
    save_pipeline("stable", tmp_path / "pipeline")
    said = said_by(tmp_path, tmp_path / "pipeline")
    assert "leave out `config` where the model is a folder" in said


def written(folder, *names):
    file = folder / "one.safetensors"
    save_file({name: torch.ones(2, 16) for name in names}, file)
    return file


def refusal(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    (said,) = caught.value.problems
    return said


def as_model(file):
    return refusal(
        resolve_image_model, ModelSpec(model=str(file)), "targets[0].model", on_gpu=False
    )


@pytest.mark.parametrize(
    ("tensor", "pipeline"),
    [
        ("cond_stage_model.transformer.a", "StableDiffusionPipeline"),
        ("conditioner.embedders.1.model.a", "StableDiffusionXLPipeline"),
        ("model.diffusion_model.joint_blocks.0.a", "StableDiffusion3Pipeline"),
        ("model.diffusion_model.double_blocks.0.a", "FluxPipeline"),
        ("first_stage_model.encoder.a", "DiffusionPipeline"),
    ],
)
def test_a_whole_pipeline_in_one_file_is_refused_with_the_key_that_its_configs_stand_under(
    tensor, pipeline, tmp_path
):
    file = written(tmp_path, tensor, "first_stage_model.decoder.b")
    assert as_model(file) == (
        f"targets[0].model: {file} is one file, and what its parts are stands in no config; name a "
        f"local folder of a {pipeline} of its family, of which the JSON and tokenizer files are "
        "enough, as `config` beside `model`"
    )


def test_a_network_alone_is_told_from_a_pipeline(tmp_path):
    for name in ("model.diffusion_model.input_blocks.0.a", "double_blocks.0.a"):
        assert "with a network and no text encoder" in as_model(written(tmp_path, name))


@pytest.mark.parametrize("tensor", ["lora_unet_a.lora_down.weight", "lora_te_a.hada_w1_a"])
def test_an_adapter_as_a_model_is_refused_with_the_key_that_it_belongs_to(tensor, tmp_path):
    assert "name it as `adapter`, and its base's folder as `model`" in as_model(
        written(tmp_path, tensor)
    )


@pytest.mark.parametrize("names", [["<word>"], ["emb_params"], ["clip_l", "clip_g"]])
def test_textual_inversion_as_a_model_is_refused_with_the_key_that_it_belongs_to(names, tmp_path):
    assert "with embeddings of textual inversion; name it as `adapter`" in as_model(
        written(tmp_path, *names)
    )


def test_pickles_and_other_files_are_refused_unread(tmp_path):
    for name, said in (("model.ckpt", "a pickle, which raymia does not read"),
                       ("model.txt", "give the folder of the checkpoint")):  # fmt: skip
        (tmp_path / name).write_bytes(b"no weights")
        assert said in as_model(tmp_path / name)


def test_config_is_a_path_of_the_audit_file_and_means_nothing_for_texts(tmp_path):
    target = {"name": "t", "model": "one.safetensors", "config": "base"}
    records = {"kind": "image", "candidates": "images"}
    place = tmp_path / "audit.yaml"
    place.write_text(yaml.safe_dump({"records": records, "targets": [target]}))
    (tmp_path / "base").mkdir()
    (tmp_path / "one.safetensors").touch()
    found = load_spec(place).targets[0]
    assert (found.model, found.config) == (
        str(tmp_path / "one.safetensors"), str(tmp_path / "base"),
    )  # fmt: skip
    texts = {"records": {"candidates": "c.csv"}, "targets": [target]}
    assert "targets[0].config means nothing for models of texts" in refusal(
        parse_spec, texts, "audit.yaml"
    )
    parse_spec({**texts, "targets": [{**target, "config": None}]}, "audit.yaml")
