"""Settings of references of generated images: what means nothing to any target is refused."""

from __future__ import annotations

import pytest
import torch
from small_image_audit import SHAPE, write_image_audit

from raymia.modalities.resolve import resolve_inputs
from raymia.models.autoencoders.vae import AutoencoderConfig, build_autoencoder
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.spec.file import load_spec
from raymia.util.errors import InputError

FOR_DIFFUSION_ALONE = {
    "sampler": "ddpm", "sampling_steps": 25, "guidance": 2.0, "instance_prompt": "a cat",
    "training.warmup": 5, "training.ema": 0.9, "training.flip": True, "training.crop": True,
    "training.timesteps": "logit_normal",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    config = AutoencoderConfig(objective="vae", image_shape=SHAPE, latent=3, channels=(4, 8))
    (folder / "vae").mkdir()
    build_autoencoder(config).eval().save(folder / "vae")
    fresh_pipeline(folder / "ddpm", SHAPE, channels=(8, 8), attention=False)
    return folder


def problems(folder, models, names, settings):
    """What is wrong with an audit of targets with a reference that has such settings."""
    own = {key: value for key, value in settings.items() if "." not in key}
    training = {key.removeprefix("training."): settings[key] for key in {*settings} - {*own}}
    file = write_image_audit(
        folder, models, attacks=["loss"],
        targets=[{"name": name, "model": str(models / name)} for name in names],
        references={"gen": {"kind": "self_generated", **own, "training": training}},
    )  # fmt: skip
    try:
        resolve_inputs(load_spec(file))
    except InputError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize("key", FOR_DIFFUSION_ALONE)
def test_what_says_nothing_to_an_autoencoder_is_refused_by_its_key(tmp_path, models, key):
    (said,) = problems(tmp_path, models, ["vae"], {key: FOR_DIFFUSION_ALONE[key]})
    assert said == (
        f"references.gen.{key}: it changes nothing for a reference of 'vae', which is of the "
        "family autoencoder; leave it out"
    )


def test_an_autoencoder_takes_steps_batches_and_rates_and_what_is_as_by_default(tmp_path, models):
    settings = {
        "images": 40, "generation_batch": 8, "sampler": "ddim", "training.warmup": 100,
        "training.steps": 9, "training.batch_size": 4, "training.learning_rate": 1e-3,
    }  # fmt: skip
    assert problems(tmp_path, models, ["vae"], settings) == []


def test_a_warm_up_that_a_diffusion_model_could_not_end_is_refused(tmp_path, models):
    said = (
        "references.gen.training.warmup: the warm-up of 100 steps should be shorter than the "
        "training of 100; make warmup smaller"
    )
    assert problems(tmp_path, models, ["vae", "ddpm"], {"training.steps": 100}) == [said]
    few = {"training.steps": 100, "training.warmup": 99}
    assert problems(tmp_path, models, ["ddpm"], few) == []


def test_beside_a_diffusion_model_its_settings_are_its_own(tmp_path, models):
    settings = {"sampling_steps": 25, "training.warmup": 5, "training.ema": 0.9}
    assert problems(tmp_path, models, ["vae", "ddpm"], settings) == []


def test_steps_of_one_image_are_refused_where_a_target_is_an_autoencoder(tmp_path, models):
    single = {"training.batch_size": 1}
    (said,) = problems(tmp_path, models, ["ddpm", "vae"], single)
    assert said == (
        "references.gen.training.batch_size: a reference of 'vae' is trained on 2 images or more "
        "at a time, but got 1; make it larger"
    )
    assert problems(tmp_path, models, ["ddpm"], single) == []
