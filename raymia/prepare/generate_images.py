"""Letting an image model generate; the noise is a function of the image's number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from raymia.models.batching import run_on_images
from raymia.models.denoisers.model import Denoiser
from raymia.prepare.trainer import Progress
from raymia.spec.images import Sampler
from raymia.util.draws import normals, stream_key
from raymia.util.errors import InputError

if TYPE_CHECKING:
    from raymia.models.autoencoders.model import Autoencoder

Images = npt.NDArray[np.uint8]


def generate_images(
    model: Denoiser,
    numbers: Sequence[int],
    *,
    seed: int,
    steps: int,
    batch: int,
    progress: Progress,
    captions: Sequence[str] = (),
    sampler: Sampler = "ddim",
    guidance: float = 1.0,
) -> Images:
    """Generate images by DDIM (Song et al., 2021, eq. 12), along the path of any model.

    The noise of image i is a function of (seed, i) and the step, so that it is the same in any
    batch and among any number, up to rounding.

    Parameters
    ----------
    numbers : of the images.
    steps : of the sampler, evenly spaced from the last timestep on.
    batch : images side by side; fewer where memory is short, and one of a model that is asked about
        one at a time.
    captions : of the images in turn, of a model of classes their numbers; none is the empty one.
    sampler : "ddim" without noise on the way (eta = 0), "ddpm" with that of DDPM (eta = 1).
    guidance : scale of classifier-free guidance away from the empty caption (Ho and Salimans,
        2022), 1 for the captions alone.

    Returns
    -------
    uint8 [numbers, channels, height, width].

    Raises
    ------
    InputError
        If there are more steps than the model has timesteps, or it generates something that is
        not finite.
    """
    timesteps = ddim_timesteps(model.path.timesteps, steps)

    def images_of(noise: torch.Tensor, numbers: list[int]) -> torch.Tensor:
        prompts = [captions[i % len(captions)] for i in numbers] if captions else None

        def predict(current: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            predicted = model.predict(current, rows, prompts)
            if prompts is None or guidance == 1:
                return predicted
            without = model.predict(current, rows, [""] * len(rows))
            return without + guidance * (predicted - without)

        def drawn(step: int) -> torch.Tensor:
            keys = torch.tensor([stream_key(seed, "on the way", i, step) for i in numbers])
            return normals(keys, noise[0].numel()).reshape(noise.shape).to(model.device)

        start = noise.to(model.device)
        fresh = drawn if sampler == "ddpm" else None
        return model.decode(denoise(model, start, timesteps, predict, fresh))

    at_once = 1 if model.one_by_one else batch
    return _from_noise(images_of, model.latent_shape, numbers, seed, at_once, progress)


def decode_prior(
    model: Autoencoder, numbers: Sequence[int], *, seed: int, batch: int, progress: Progress
) -> Images:
    """Generate images by an autoencoder, from latents that are standard normal.

    As :func:`generate_images`: image i is a function of (seed, i).
    """

    def images_of(noise: torch.Tensor, _: list[int]) -> torch.Tensor:
        return model.generate(noise.to(model.device))

    return _from_noise(images_of, model.latent_shape, numbers, seed, batch, progress)


def _from_noise(
    images_of: Callable[[torch.Tensor, list[int]], torch.Tensor],
    shape: tuple[int, ...],
    numbers: Sequence[int],
    seed: int,
    batch: int,
    progress: Progress,
) -> Images:
    done = 0

    def run(places: list[int]) -> list[Images]:
        nonlocal done
        some = [numbers[place] for place in places]
        keys = torch.tensor([stream_key(seed, "generate", i) for i in some])
        images = images_of(normals(keys, math.prod(shape)).reshape(-1, *shape), some)
        if not bool(torch.isfinite(images).all()):
            raise InputError(
                "the model generates values that are not finite; look at the checkpoint, or at its "
                "precision"
            )
        done += len(some)
        progress(done, len(numbers))
        return list((images * 255).round().to(torch.uint8).cpu().numpy())

    return np.stack(run_on_images(len(numbers), run, budget=batch))


def ddim_timesteps(schedule: int, steps: int) -> list[int]:
    """Timesteps of a sampler, the last of the schedule first, evenly spaced.

    Starting from the last is what makes the starting noise what the model was trained on (Lin et
    al., 2024, section 3.3).
    """
    if steps > schedule:
        raise InputError(
            f"sampling takes {steps} steps, and the model's noise schedule has {schedule}; make "
            "sampling_steps smaller"
        )
    return [round(schedule * (steps - n) / steps) - 1 for n in range(steps)]


@torch.inference_mode()
def denoise(
    model: Denoiser,
    noise: torch.Tensor,
    timesteps: list[int],
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    fresh: Callable[[int], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Take noise [batch, *latent_shape] to what the model denoises, step by step.

    Each step takes the clean image that the model sees, cut to its range [-1, 1] where it is an
    image and no latent, and the noise that it sees to the next timestep.

    Parameters
    ----------
    predict : what the network says of (x_t, timesteps); default: the model's, without a caption.
    fresh : noise of a step, by its number, for a part of the noise that is kept: as much as
        x_t would have been given on its way from the next timestep to this one (eta = 1 there).
    """
    current, asked = noise, predict or model.predict
    for number, (now, after) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
        rows = model.at([now] * len(current))
        output = asked(current, rows)
        predicted = model.path.noise_in(current, output, rows)
        clean = model.path.clean_in(current, output, rows)
        if model.autoencoder is None:
            clean = clean.clamp(-1, 1)
        if after is None:
            return clean
        new_signal, new_sigma = model.path.coefficients(model.at([after] * len(current)))
        if fresh is None:
            current = new_signal * clean + new_sigma * predicted
            continue
        signal, sigma = model.path.coefficients(rows)
        # The variance of x_after given x_now and x_0 (Ho et al., 2020, eq. 7), on any path.
        kept = (signal * new_sigma / (new_signal * sigma)).clamp(max=1)
        current = new_signal * clean + new_sigma * (
            kept * predicted + (1 - kept**2).sqrt() * fresh(number)
        )
    return current
