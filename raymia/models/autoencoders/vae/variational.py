"""VAE and beta-VAE."""

from __future__ import annotations

import torch

from raymia.models.autoencoders.vae.config import AutoencoderConfig
from raymia.models.autoencoders.vae.convolutional import ConvolutionalAutoencoder
from raymia.models.autoencoders.vae.network import Posterior, normal_divergence, squared_error


class VariationalAutoencoder(ConvolutionalAutoencoder):
    """A Gaussian encoder, and a loss of ||x - dec(z)||^2 + beta KL(q(z|x) || N(0, I)).

    Kingma and Welling, arXiv 1312.6114; beta: Higgins et al., ICLR 2017.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config, outputs=2 * config.latent)
        self.noise_size = config.latent

    def posterior(self, images: torch.Tensor) -> Posterior:
        """Mean and log-variance, [images, latent] each."""
        mean, log_variance = self.encode(images).chunk(2, dim=1)
        return mean, log_variance

    def terms(
        self, images: torch.Tensor, posterior: Posterior, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = posterior
        decoded = self.decode(mean + (0.5 * log_variance).exp() * noise)
        divergence = self.config.beta * normal_divergence(mean, log_variance)
        return squared_error(images, decoded), divergence
