"""What an autoencoder says of images: the terms of the loss it was trained on, draw by draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from raymia.models.autoencoders.kl import load_kl_autoencoder
from raymia.models.autoencoders.resolver import AutoencoderCheckpoint
from raymia.models.autoencoders.vae import AutoencoderNetwork, load_vae
from raymia.models.autoencoders.vae.network import squared_error
from raymia.models.batching import run_on_images
from raymia.models.lanes import Twins, lanes_here
from raymia.spec.images import Shape
from raymia.util.errors import RaymiaError

Tensors = tuple[torch.Tensor, ...]


class Autoencoder:
    """An autoencoder ready to answer; each image is answered as if it were alone.

    Images are float32 [count, channels, height, width] in [0, 1]; answers are float32, on the
    model's device.

    Parameters
    ----------
    network : in eval mode, on its device.
    batch_images : largest number of images, or latents, per forward pass.

    Attributes
    ----------
    shape : channels, height and width of the images it takes.
    latent_shape : of one image's latents.
    noise_size : standard normal numbers per latent draw; 0 where the encoder is deterministic, so
        that every draw has the same answer.
    """

    def __init__(self, network: AutoencoderNetwork, *, batch_images: int) -> None:
        self.network = network
        self.batch_images = batch_images
        self._twins = Twins(network)
        self.shape: Shape = network.image_shape
        self.latent_shape = network.latent_shape
        self.noise_size = network.noise_size
        self.device = next(network.parameters()).device

    @torch.inference_mode()
    def terms(self, images: torch.Tensor, noise: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of each latent draw, in nats, summed over pixels and latents.

        Each image is encoded once, and decoded once per draw.

        Parameters
        ----------
        noise : standard normal, float32 [count, draws, noise_size].

        Returns
        -------
        ``loss``, and its parts ``reconstruction`` and ``divergence``, whose sum it is; [count,
        draws] each. Weights of the objective (beta, that of the MMD) are in the divergence.

        Raises
        ------
        RaymiaError
            If images or noise have another shape, or part of the model is in training mode.
        """
        images = self._ready(images)
        count, draws = len(images), noise.shape[1]
        if noise.shape != (count, draws, self.noise_size):
            raise RaymiaError(
                f"noise should be of shape [{count}, draws, {self.noise_size}], but got "
                f"{list(noise.shape)}"
            )
        posterior = self._posterior(images)
        asked = draws if self.noise_size else 1
        image = torch.arange(count, device=self.device).repeat_interleave(asked)
        flat = noise[:, :asked].to(self.device, torch.float32).flatten(0, 1)

        def run(network: AutoencoderNetwork, rows: list[int]) -> Tensors:
            at = image[rows]
            return network.terms(images[at], tuple(p[at] for p in posterior), flat[rows])

        reconstruction, divergence = (
            found.reshape(count, asked).expand(count, draws)
            for found in self._in_batches(len(image), run)
        )
        return {
            "loss": reconstruction + divergence,
            "reconstruction": reconstruction,
            "divergence": divergence,
        }

    @torch.inference_mode()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Mean latents, [count, *latent_shape]."""
        return self._posterior(self._ready(images))[0]

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] of latents [count, *latent_shape]."""
        self._check_mode()
        latents = latents.to(self.device, torch.float32).reshape(-1, *self.latent_shape)
        (images,) = self._in_batches(
            len(latents), lambda network, rows: (network.decode(latents[rows]),)
        )
        return images

    def best_error(self, image: torch.Tensor, steps: int, rate: float) -> torch.Tensor:
        """The smallest squared error of an image's reproductions met in a search among latents.

        Adam follows the gradient of the error from the mean latents that the encoder gives. One
        image at a time: a descent makes the rounding of batch shapes grow.

        Parameters
        ----------
        image : one, [1, channels, height, width].
        steps, rate : of the descent.

        Returns
        -------
        The error summed over channels and pixels, float32 [1].
        """
        image = self._ready(image)
        latents = self.encode(image).clone().requires_grad_()
        descent = torch.optim.Adam([latents], lr=rate)
        best = torch.full((1,), torch.inf, device=self.device)
        with torch.enable_grad():
            for step in range(steps + 1):
                error = squared_error(image, self.network.decode(latents))
                best = torch.minimum(best, error.detach())
                if step < steps:
                    descent.zero_grad()
                    error.sum().backward()  # type: ignore[no-untyped-call]
                    descent.step()
        return best

    def generate(self, noise: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] of latents drawn from the prior, which is standard normal.

        Parameters
        ----------
        noise : standard normal, [count, ...] with as many numbers per image as its latents have.
        """
        return self.decode(noise)

    def _posterior(self, images: torch.Tensor) -> Tensors:
        return self._in_batches(len(images), lambda network, rows: network.posterior(images[rows]))

    def _ready(self, images: torch.Tensor) -> torch.Tensor:
        self._check_mode()
        if not len(images) or images.shape[1:] != self.shape:
            raise RaymiaError(
                f"images should be one or more of shape {list(self.shape)}, but got "
                f"{list(images.shape)}"
            )
        return images.to(self.device, torch.float32)

    def _check_mode(self) -> None:
        # In training mode batch normalization makes answers depend on batch mates.
        if any(module.training for module in self.network.modules()):
            raise RaymiaError("an autoencoder is asked in eval mode, and part of it is in training")

    def _in_batches(
        self, count: int, run: Callable[[AutoencoderNetwork, list[int]], Tensors]
    ) -> Tensors:
        """Run over rows, batch by batch; see :func:`run_on_images`.

        Parameters
        ----------
        run : from the network, which may be a twin of it, and a batch to its answers, row by row.
        """

        @torch.inference_mode()
        def by_row(network: AutoencoderNetwork, rows: list[int]) -> list[Tensors]:
            return list(zip(*run(network, rows), strict=True))

        lanes, _ = lanes_here()
        networks = (self._twins.of(lanes) if lanes > 1 else []) or [self.network]
        runs = (partial(by_row, network) for network in networks)
        answers = run_on_images(count, *runs, budget=self.batch_images)
        return tuple(torch.stack(column) for column in zip(*answers, strict=True))


def load_autoencoder(checkpoint: AutoencoderCheckpoint, *, batch_images: int) -> Autoencoder:
    """Load an autoencoder onto the GPU where there is one, else onto the CPU.

    Raises
    ------
    InputError
        If the files cannot be used, or are of a model that is no autoencoder.
    """
    folder = Path(checkpoint.path)
    dtype: torch.dtype = getattr(torch, checkpoint.dtype)
    network: AutoencoderNetwork
    if checkpoint.objective == "kl":
        network = load_kl_autoencoder(folder, dtype, checkpoint.variant)
    else:
        own = load_vae(folder)
        own.set_precision(dtype)
        network = own
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Autoencoder(network.to(device), batch_images=batch_images)
