"""What every autoencoder answers and is trained by, whatever its objective."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

Posterior = tuple[torch.Tensor, ...]
"""What the encoder says of images, each [images, ...], float32; the mean latents come first."""


class AutoencoderNetwork(nn.Module, ABC):
    """An autoencoder whose loss on an image is the sum of a reconstruction error and a divergence.

    Images are float32 [count, channels, height, width] in [0, 1].

    Attributes
    ----------
    image_shape : channels, height and width.
    latent_shape : of one image's latents.
    noise_size : standard normal numbers that one draw of the loss takes; 0 where it draws none.
    not_private : why it cannot be trained privately; None where it can.
    kept_images : how many of the images that were trained on answers take something from, at most.
    """

    not_private: ClassVar[str | None] = None
    kept_images: ClassVar[int] = 0
    image_shape: tuple[int, int, int]
    latent_shape: tuple[int, ...]
    noise_size: int

    @abstractmethod
    def posterior(self, images: torch.Tensor) -> Posterior:
        """Encode images."""

    @abstractmethod
    def terms(
        self, images: torch.Tensor, posterior: Posterior, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One draw of the loss on each image, as its two parts; their sum is the loss.

        Parameters
        ----------
        posterior : of these images.
        noise : standard normal, float32 [images, noise_size].

        Returns
        -------
        Reconstruction error and divergence, float32 [images].
        """

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents [count, *latent_shape] to images in [0, 1]."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write config and weights, as safetensors, to a folder."""

    def training_loss(self, images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """The loss of a batch, to be made small: a scalar.

        Parameters
        ----------
        random : a generator on the CPU, so that a seed draws the same noise on every device.
        """
        noise = torch.randn((len(images), self.noise_size), generator=random).to(images.device)
        return self.losses(images, noise).mean()

    def losses(self, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """One draw of the loss on each image, [images]."""
        reconstruction, divergence = self.terms(images, self.posterior(images), noise)
        return reconstruction + divergence

    def finish(self, images: torch.Tensor) -> None:
        """Keep what answers take from images that were trained on, ``kept_images`` at most; called
        before saving, where there are any."""

    @property
    def latent_size(self) -> int:
        return math.prod(self.latent_shape)


def squared_error(images: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """Sum of squared differences over channels and pixels, in float32, [images].

    In nats this is a Gaussian decoder of variance 1/2 per pixel, its constant left out.
    """
    return (images.float() - decoded.float()).square().flatten(1).sum(1)


def normal_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL(N(mean, diag exp log_variance) || N(0, I)) in nats, [images]."""
    terms = mean.square() + log_variance.exp() - 1 - log_variance
    return 0.5 * terms.flatten(1).sum(1)


def squared_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances of every pair of [n, latent] and [m, latent], [n, m].

    By differences: matrix products, torch's default for many rows, would round by batch.
    """
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()
