"""Diffusion models behind one face: whatever a network predicts, the noise is what comes out."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from edited import edit
from small_image_models import plain_images, plain_latents, save_pipeline

from raymia.models.denoisers.model import Denoiser, load_denoiser
from raymia.models.denoisers.path import Diffusion
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.util.errors import InputError

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
SHAPE = (1, 4, 4)


def knows_the_noise(prediction: str, clean: torch.Tensor, noise: torch.Tensor) -> Denoiser:
    """A perfect model of one image: it predicts what it was given, in its own terms."""

    def network(noisy: torch.Tensor, timesteps: torch.Tensor, _: None) -> torch.Tensor:
        signal = ALPHAS[timesteps].sqrt().float().reshape(-1, 1, 1, 1)
        sigma = (1 - ALPHAS[timesteps]).sqrt().float().reshape(-1, 1, 1, 1)
        return {
            "epsilon": noise.expand_as(noisy),
            "v_prediction": signal * noise - sigma * clean,
            "sample": clean.expand_as(noisy),
        }[prediction]

    return Denoiser(
        network, Diffusion(ALPHAS, prediction), shape=SHAPE, latent_shape=SHAPE, batch_images=8
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_whatever_a_network_predicts_its_noise_comes_out(prediction):
    clean, noise = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    model = knows_the_noise(prediction, clean, noise)
    timesteps = torch.tensor([20, 300, 900])
    noisy = model.path.add_noise(clean.expand(3, *SHAPE), noise.expand(3, *SHAPE), timesteps)
    found = model.predict_noise(noisy, timesteps)
    torch.testing.assert_close(found, noise.expand(3, *SHAPE), atol=2e-5, rtol=0)


def test_a_learned_variance_is_cut_off():
    def network(noisy, *_):
        return torch.cat([noisy, noisy * 7], dim=1)

    model = Denoiser(
        network, Diffusion(ALPHAS, "epsilon"), shape=SHAPE, latent_shape=SHAPE, batch_images=8
    )
    noisy = torch.randn(2, *SHAPE)
    assert torch.equal(model.predict_noise(noisy, torch.tensor([1, 2])), noisy)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(InputError, match="prediction_type should be one of"):
        Diffusion(ALPHAS, "flow")


@pytest.mark.parametrize("kind", ["ddpm", "ddim", "pndm", "ldm", "stable", "stable_2", "dit"])
def test_every_pipeline_is_loaded_and_answers_like_its_own_network(kind, tmp_path):
    pipeline = save_pipeline(kind, tmp_path)
    checkpoint = resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)
    assert checkpoint.family == "denoiser"
    assert checkpoint.is_captioned == kind.startswith("stable")
    assert (checkpoint.prediction == "v_prediction") == (kind == "stable_2")
    model = load_denoiser(checkpoint, batch_images=4)
    images = torch.rand(3, *checkpoint.shape)
    latents = model.encode(images)
    assert latents.shape[1:] == checkpoint.latent_shape
    torch.testing.assert_close(latents, plain_latents(pipeline.pipeline, images))
    shown = plain_images(pipeline.pipeline, latents)
    torch.testing.assert_close(model.decode(latents), shown)
    timesteps = torch.tensor([10, 200, 700])
    captions = ["a cat", "", "a dog on a mat " * 120] if checkpoint.is_captioned else None
    found = model.predict_noise(latents, timesteps, captions)
    expected = pipeline.expected_noise(latents, timesteps, captions)
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float32


def test_answers_do_not_depend_on_batch_mates(tmp_path):
    save_pipeline("ddpm", tmp_path)
    checkpoint = resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)
    model = load_denoiser(checkpoint, batch_images=4)
    noisy = torch.randn(5, *checkpoint.latent_shape)
    timesteps = torch.tensor([1, 50, 300, 600, 999])
    together = model.predict_noise(noisy, timesteps)
    alone = torch.cat(
        [model.predict_noise(noisy[i : i + 1], timesteps[i : i + 1]) for i in range(5)]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_quantization_without_a_gpu_is_refused_before_loading(tmp_path):
    save_pipeline("ddpm", tmp_path)
    spec = ModelSpec(model=str(tmp_path), quantization="nf4")
    with pytest.raises(InputError, match="quantizes on GPUs alone"):
        resolve_image_model(spec, "targets[0]", on_gpu=False)
    resolve_image_model(spec, "targets[0]", on_gpu=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="diffusers quantizes on GPUs alone")
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_network_stays_near_the_whole_one(quantization, tmp_path):
    save_pipeline("stable", tmp_path)
    specs = [ModelSpec(model=str(tmp_path), quantization=q) for q in ("none", quantization)]
    checkpoints = [resolve_image_model(spec, "targets[0]", on_gpu=True) for spec in specs]
    assert checkpoints[0].fingerprint != checkpoints[1].fingerprint
    whole, quantized = (load_denoiser(c, batch_images=4) for c in checkpoints)
    noisy = torch.randn(2, *checkpoints[0].latent_shape, device=whole.device)
    timesteps = torch.tensor([100, 500])
    one, other = (m.predict_noise(noisy, timesteps, ["a", "b"]).cpu() for m in (whole, quantized))
    assert other.dtype == torch.float32
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.95


def test_a_pipeline_without_a_scheduler_is_refused(tmp_path):
    save_pipeline("ddpm", tmp_path)
    (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(InputError, match=r"has no scheduler/scheduler_config\.json"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)


def test_latents_without_a_scale_are_refused(tmp_path):
    import json

    save_pipeline("stable", tmp_path)
    file = tmp_path / "vae" / "config.json"
    config = json.loads(file.read_text())
    del config["scaling_factor"]
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"has no scaling_factor, .*takes 0\.18215"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scaling_factor", 0), ("scaling_factor", "0.2"), ("scaling_factor", float("nan")),
        ("shift_factor", "x"), ("shift_factor", float("inf")), ("latents_std", [1, 1, 1, 1]),
    ],
)  # fmt: skip
def test_latents_that_cannot_be_scaled_are_refused_by_their_key(tmp_path, key, value):
    save_pipeline("stable", tmp_path)
    edit(tmp_path / "vae" / "config.json", **{key: value})
    with pytest.raises(InputError, match=rf"vae/config\.json(:| has) {key}"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"beta_start": "0.1"}, "diffusers cannot make a DDPMScheduler of it"),
        ({"beta_schedule": "nosuch"}, "diffusers cannot make a DDPMScheduler of it"),
        ({"num_train_timesteps": 0}, "num_train_timesteps should be a whole number of at least 1"),
        ({"beta_start": -0.1}, "its betas make no schedule of 1,000 timesteps"),
        (
            {"beta_start": 0.5, "beta_end": 1.5, "num_train_timesteps": 10},
            "its betas make no schedule of 10 timesteps",
        ),
        ({"beta_end": float("nan")}, "its betas make no schedule"),
        ({"trained_betas": [0.1] * 3}, "its betas make no schedule"),
    ],
)
def test_a_schedule_that_is_none_is_refused(tmp_path, changes, says):
    save_pipeline("ddpm", tmp_path)
    edit(tmp_path / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(InputError, match=rf"scheduler_config\.json: {says}"):
        resolve(tmp_path)


def test_weights_in_pickles_are_refused(tmp_path):
    save_pipeline("ddpm", tmp_path)
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(InputError, match=r"unpickles no file"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_lack_a_tensor_are_refused_and_not_filled_with_random_numbers(part, tmp_path):
    from safetensors.torch import load_file, save_file

    save_pipeline("stable", tmp_path)
    (file,) = (tmp_path / part).glob("*.safetensors")
    weights = load_file(file)
    lacking = max(weights)
    del weights[lacking]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=rf"{part}: its weights lack 1 of the tensors .*{lacking}"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), "targets[0]", on_gpu=False)


def test_two_copies_have_one_fingerprint_and_a_changed_weight_another(tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    save_pipeline("ddpm", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    prints = []
    for change in (False, True):
        if change:
            file = tmp_path / "b" / "unet" / "diffusion_pytorch_model.safetensors"
            weights = load_file(file)
            name = next(iter(weights))
            save_file({**weights, name: weights[name] * 1.01}, file)
        prints.append(
            [resolve_image_model(ModelSpec(model=str(tmp_path / n)), n, on_gpu=False).fingerprint
             for n in "ab"]
        )  # fmt: skip
    assert prints[0][0] == prints[0][1] == prints[1][0] != prints[1][1]


@pytest.mark.parametrize(("first", "other"), [("unet", "transformer"), ("vqvae", "vae")])
def test_of_two_networks_in_a_folder_the_one_that_its_index_names_is_asked(tmp_path, first, other):
    save_pipeline("ldm", tmp_path)
    reads = resolve(tmp_path)
    shutil.copytree(tmp_path / first, tmp_path / other)
    for part in ("network", "autoencoder"):
        assert getattr(resolve(tmp_path), part) == getattr(reads, part)
    edit(tmp_path / "model_index.json", **{first: [None, None], other: ["diffusers", "Any"]})
    found = resolve(tmp_path)
    assert other in (found.network.folder, found.autoencoder.folder)


def test_autoencoder_that_the_index_names_and_nobody_copied_is_missed(tmp_path):
    save_pipeline("ldm", tmp_path)
    shutil.rmtree(tmp_path / "vqvae")
    with pytest.raises(InputError, match=r"has no vqvae, which its model_index\.json names"):
        resolve(tmp_path)


def resolve(folder):
    return resolve_image_model(ModelSpec(model=str(folder)), "targets[0].model", on_gpu=False)
