"""WAE-MMD: an autoencoder whose latents are held to the prior by a kernel.

Tolstikhin et al., arXiv 1711.01558. The encoder is deterministic, as in pythae.
"""

from __future__ import annotations

import torch

from raymia.models.autoencoders.vae.config import AutoencoderConfig, MmdConfig
from raymia.models.autoencoders.vae.convolutional import ConvolutionalAutoencoder
from raymia.models.autoencoders.vae.network import Posterior, squared_distances, squared_error
from raymia.util.draws import normals, stream_key

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
PRIOR_SAMPLE = 1_024
"""Latents of the prior that a single encoding is compared with."""


class WassersteinAutoencoder(ConvolutionalAutoencoder):
    """A loss of ||x - dec(z)||^2 + weight * MMD^2(encodings of the batch, sample of the prior).

    The penalty is of a batch. In its place, :meth:`terms` has the squared MMD between the image's
    encoding z alone and the prior, k(z, z) - 2 E k(z, p) + E k(p, p'): the witness of z against the
    prior, moved so that it is never negative. The prior is one fixed sample, the same for every
    model of this width, so the term is a function of the image.
    """

    not_private = (
        "the penalty of wae_mmd compares all latents of a batch, so that no image has a loss of "
        "its own"
    )
    prior: torch.Tensor
    prior_mean: torch.Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config, outputs=config.latent)
        self.noise_size = 0
        key = torch.tensor([stream_key("WAE-MMD prior")])
        prior = normals(key, PRIOR_SAMPLE * config.latent).reshape(PRIOR_SAMPLE, config.latent)
        self.register_buffer("prior", prior, persistent=False)
        mean = kernel(prior, prior, config.mmd).mean()
        self.register_buffer("prior_mean", mean, persistent=False)

    def posterior(self, images: torch.Tensor) -> Posterior:
        """The encoding alone, [images, latent]."""
        return (self.encode(images),)

    def terms(
        self, images: torch.Tensor, posterior: Posterior, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del noise
        (latents,) = posterior
        mmd = self.config.mmd
        witness = kernel(latents, self.prior, mmd).mean(1)
        alone = 1.0 if mmd.kernel == "rbf" else float(len(IMQ_SCALES))  # k(z, z)
        discrepancy = alone - 2 * witness + self.prior_mean
        return squared_error(images, self.decode(latents)), mmd.weight * discrepancy

    def training_loss(self, images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        latents = self.encode(images)
        prior = torch.randn(latents.shape, generator=random).to(images.device)
        penalty = self.config.mmd.weight * squared_mmd(latents, prior, self.config.mmd)
        return squared_error(images, self.decode(latents)).mean() + penalty


def kernel(first: torch.Tensor, second: torch.Tensor, mmd: MmdConfig) -> torch.Tensor:
    """Kernel of every pair of [n, latent] and [m, latent], [n, m].

    With C = 2 latent bandwidth^2 and d the distance: ``sum_s s C / (s C + d^2)``, or
    ``exp(-d^2 / C)``.
    """
    distances = squared_distances(first, second)
    base = 2 * first.shape[1] * mmd.bandwidth**2
    if mmd.kernel == "rbf":
        return (-distances / base).exp()
    total = torch.zeros_like(distances)
    for scale in IMQ_SCALES:
        total = total + scale * base / (scale * base + distances)
    return total


def squared_mmd(first: torch.Tensor, second: torch.Tensor, mmd: MmdConfig) -> torch.Tensor:
    """Unbiased estimate of the squared MMD between two samples of one size (algorithm 2)."""
    count = len(first)
    pairs = count * (count - 1)
    within = [kernel(x, x, mmd) for x in (first, second)]
    own = sum((k.sum() - k.diagonal().sum()) / pairs for k in within)
    return own - 2 * kernel(first, second, mmd).mean()
