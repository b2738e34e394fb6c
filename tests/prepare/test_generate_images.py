"""Generated images: DDIM as diffusers has it, and a function of the image's number alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raymia.models.denoisers.model import Denoiser, load_denoiser
from raymia.models.denoisers.path import Diffusion, Flow
from raymia.models.image_source import resolve_image_model
from raymia.prepare.denoiser_files import fresh_pipeline
from raymia.prepare.generate_images import ddim_timesteps, decode_prior, denoise, generate_images
from raymia.spec import ModelSpec
from raymia.util.draws import normals, stream_key
from raymia.util.errors import InputError

SHAPE = (2, 8, 8)


def betas(count=100):
    return torch.linspace(1e-4, 0.02 * 1000 / count, count, dtype=torch.float64)


def gaussian_denoiser(
    mean=0.3, deviation=0.2, prediction="epsilon", count=100, latents=None, alphas=None
):
    """The best denoiser of images whose pixels are all independent and normal.

    E[x_0 | x_t] = mean + a s^2 (x_t - a mean) / (a^2 s^2 + 1 - a^2), with a = sqrt(abar_t).
    """
    alphas = torch.cumprod(1 - betas(count), 0) if alphas is None else alphas
    path = Flow(count) if prediction == "flow" else Diffusion(alphas, prediction)

    def flow(noisy, timesteps, _):
        share = (timesteps / count).float().reshape(-1, 1, 1, 1)
        gain = (1 - share) * deviation**2 / ((1 - share) ** 2 * deviation**2 + share**2)
        clean = mean + gain * (noisy - (1 - share) * mean)
        return (noisy - clean) / share

    def network(noisy, timesteps, _):
        kept = alphas[timesteps].float().reshape(-1, 1, 1, 1)
        gain = kept.sqrt() * deviation**2 / (kept * deviation**2 + 1 - kept)
        clean = mean + gain * (noisy - kept.sqrt() * mean)
        noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * clean
        return {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction]

    return Denoiser(
        flow if prediction == "flow" else network, path, shape=SHAPE, latent_shape=SHAPE,
        batch_images=8, autoencoder=latents,
    )  # fmt: skip


def generate(model, count, *, batch=64, seed=0, steps=20, progress=None, **more):
    return generate_images(
        model, range(count), seed=seed, steps=steps, batch=batch,
        progress=progress or (lambda *_: None), **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def unet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    fresh_pipeline(folder, SHAPE, channels=(8, 16))
    checkpoint = resolve_image_model(ModelSpec(model=str(folder)), "m", on_gpu=False)
    return load_denoiser(checkpoint, batch_images=8)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("is_latent", [False, True])
def test_steps_are_those_of_diffusers(is_latent, prediction):
    """Also where the schedule ends in noise alone, of which no network tells what noise it is."""
    from diffusers import DDIMScheduler

    class Identity:
        """Latents that are not cut to a range."""

        encode = decode = staticmethod(lambda values: values)

    theirs = DDIMScheduler(
        num_train_timesteps=100, trained_betas=betas().numpy(), clip_sample=not is_latent,
        set_alpha_to_one=True, timestep_spacing="trailing", prediction_type=prediction,
        rescale_betas_zero_snr=prediction != "epsilon",
    )  # fmt: skip
    theirs.set_timesteps(20)
    assert theirs.timesteps.tolist() == ddim_timesteps(100, 20)
    assert (theirs.alphas_cumprod[-1] == 0) == (prediction != "epsilon")
    latents = Identity() if is_latent else None
    model = gaussian_denoiser(
        deviation=0.9, prediction=prediction, latents=latents, alphas=theirs.alphas_cumprod
    )
    noise = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    drawn = torch.randn(20, 3, *SHAPE, generator=torch.Generator().manual_seed(1))
    for eta, fresh in ((0.0, None), (1.0, lambda step: drawn[step])):
        expected = noise
        for number, t in enumerate(theirs.timesteps):
            predicted = model.predict(expected, t.repeat(3))
            last = number == 19  # which ends without noise here
            expected = theirs.step(
                predicted, t, expected, eta=eta * (not last), variance_noise=drawn[number] * eta
            ).prev_sample
        found = denoise(model, noise, ddim_timesteps(100, 20), fresh=fresh)
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("prediction", "sampler", "steps"),
    [
        ("epsilon", "ddim", 1000),
        ("v_prediction", "ddim", 1000),
        ("sample", "ddim", 1000),
        ("flow", "ddim", 500),
        ("epsilon", "ddpm", 1000),
        ("flow", "ddpm", 250),
    ],
)
def test_images_have_the_distribution_that_the_model_knows(prediction, sampler, steps):
    """Pixels are normal with mean 0.3 and deviation 0.2 in [-1, 1], halved in [0, 1]."""
    model = gaussian_denoiser(prediction=prediction, count=1000)
    values = generate(model, 50, batch=50, steps=steps, sampler=sampler).astype(float) / 255
    assert values.mean() == pytest.approx(0.65, abs=0.005)
    assert values.std() == pytest.approx(0.1, rel=0.04)


def test_timesteps_begin_with_the_last_and_are_all_different():
    for schedule, steps in ((1000, 50), (1000, 7), (100, 100), (10, 1)):
        found = ddim_timesteps(schedule, steps)
        assert found[0] == schedule - 1
        assert len(set(found)) == len(found) == steps
        assert found == sorted(found, reverse=True)
        assert found[-1] >= 0


def test_batches_and_number_change_no_image(unet):
    """But for the rounding of the network's sums, which a level can turn on."""
    whole = generate(unet, 7, steps=5)
    for other in (generate(unet, 7, batch=1, steps=5), generate(unet, 9, batch=4, steps=5)[:7]):
        difference = np.abs(whole.astype(int) - other.astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
    assert whole.dtype == np.uint8
    assert whole.shape == (7, *SHAPE)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_captions_are_the_images_in_turn_and_guidance_leads_away_from_the_empty_one(guidance):
    """One step from s = 0.9 ends at x - 0.9 v, with v what is predicted. The first caption is the
    one that the model is asked with about all images, and is guided as others are."""
    ends = []

    class Told(Denoiser):
        def predict(self, noisy, timesteps, captions=None):
            del timesteps
            told = captions or [self.prompt] * len(noisy)
            numbers = [float(caption or "0.5") for caption in told]
            return torch.tensor(numbers).reshape(-1, 1, 1, 1).expand_as(noisy)

        def decode(self, latents):
            ends.append(latents)
            return latents.clamp(0, 1)

    model = Told(
        lambda *_: None, Flow(10), shape=SHAPE, latent_shape=SHAPE, batch_images=8,
        autoencoder=object(), prompt="1",
    )  # fmt: skip
    generate(model, 3, steps=1, captions=["1", "2"], guidance=guidance)
    keys = torch.tensor([stream_key(0, "generate", i) for i in range(3)])
    noise = normals(keys, 2 * 8 * 8).reshape(3, *SHAPE)
    seen = 0.5 + guidance * (torch.tensor([1.0, 2.0, 1.0]) - 0.5)
    expected = noise - 0.9 * seen.reshape(-1, 1, 1, 1)
    torch.testing.assert_close(ends[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_images_are_functions_of_the_seed_and_differ(unet, sampler):
    torch.manual_seed(3)
    one = generate(unet, 3, steps=4, sampler=sampler)
    torch.manual_seed(4)
    assert np.array_equal(one, generate(unet, 3, steps=4, sampler=sampler))
    assert not np.array_equal(one, generate(unet, 3, steps=4, seed=1))
    assert not np.array_equal(one[0], one[1])


def test_progress_ends_at_all_images(unet):
    seen = []
    generate(unet, 5, batch=2, steps=2, progress=lambda *s: seen.append(s))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_lack_of_memory_makes_batches_smaller_and_changes_no_image():
    model = gaussian_denoiser()
    network = model.network

    def short_of_memory(noisy, *rest):
        if len(noisy) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return network(noisy, *rest)

    expected = generate(model, 6)
    model.network = short_of_memory
    assert np.array_equal(generate(model, 6), expected)


def test_autoencoder_decodes_what_is_drawn_from_its_prior():
    class Decoder:
        latent_shape = (3, 2)
        device = torch.device("cpu")

        def generate(self, noise):
            return torch.sigmoid(noise)[:, None]

    images = decode_prior(Decoder(), range(5), seed=2, batch=2, progress=lambda *_: None)
    for i in range(5):
        latents = normals(torch.tensor([stream_key(2, "generate", i)]), 6).reshape(1, 3, 2)
        expected = (torch.sigmoid(latents) * 255).round().numpy()
        assert np.array_equal(images[i], expected)


def test_values_that_are_not_finite_are_an_error():
    model = gaussian_denoiser()
    model.network = lambda noisy, *_: noisy * float("nan")
    with pytest.raises(InputError, match="values that are not finite; look at the checkpoint"):
        generate(model, 2)


def test_more_steps_than_timesteps_are_refused():
    with pytest.raises(InputError, match=r"takes 101 steps, and .* has 100; make sampling_steps"):
        generate(gaussian_denoiser(), 2, steps=101)
