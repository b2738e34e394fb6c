"""A model of images that is given as one file is refused with what to do, before anything is
loaded."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from raymia.models.denoisers.lora_files import read_low_rank
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.util.errors import InputError


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
def test_a_whole_pipeline_in_one_file_is_refused_with_the_call_that_makes_a_folder(
    tensor, pipeline, tmp_path
):
    file = written(tmp_path, tensor, "first_stage_model.decoder.b")
    assert as_model(file) == (
        f"targets[0].model: {file} is one file, and pipelines are read from folders; write one "
        f"with diffusers, `{pipeline}.from_single_file(FILE, config=BASE).save_pretrained(FOLDER)`"
        ", where BASE is a local folder of its family, and name FOLDER"
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
def test_textual_inversion_is_refused_as_what_it_is_wherever_it_is_named(names, tmp_path):
    file = written(tmp_path, *names)
    as_adapter = refusal(read_low_rank, file, "targets[0].adapter")
    for said, key in ((as_model(file), "model"), (as_adapter, "adapter")):
        assert said.startswith(f"targets[0].{key}: {file}")
        assert "with embeddings of textual inversion; put them into the pipeline with its" in said


def test_pickles_and_other_files_are_refused_unread(tmp_path):
    for name, said in (("model.ckpt", "a pickle, which raymia does not read"),
                       ("model.txt", "give the folder of the checkpoint")):  # fmt: skip
        (tmp_path / name).write_bytes(b"no weights")
        assert said in as_model(tmp_path / name)
