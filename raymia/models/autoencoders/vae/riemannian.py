"""RHVAE: a VAE whose latents follow Hamiltonian dynamics under a learned metric.

Chadebec et al., arXiv 2010.11518, and "Data Augmentation in High Dimensional Low Sample Size
Setting Using a Geometry-Based Variational Autoencoder", arXiv 2105.00026.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import nn

from raymia.models.autoencoders.vae.config import AutoencoderConfig
from raymia.models.autoencoders.vae.convolutional import ConvolutionalAutoencoder
from raymia.models.autoencoders.vae.hamiltonian import (
    Metric,
    draw_momentum,
    flow,
    log_det,
    momentum_energy,
)
from raymia.models.autoencoders.vae.network import Posterior, squared_error

METRIC_WIDTH = 400
MAX_CENTROIDS = 1_000
"""Training images that the metric of a finished model is made of, at most: each has a matrix of
latent x latent numbers."""


class MetricNetwork(nn.Module):
    """Images to lower triangular matrices with a positive diagonal, [images, latent, latent]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.body = nn.Linear(math.prod(config.image_shape), METRIC_WIDTH)
        self.diagonal = nn.Linear(METRIC_WIDTH, config.latent)
        self.below = nn.Linear(METRIC_WIDTH, config.latent * (config.latent - 1) // 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.body(images.flatten(1)))
        rows, columns = torch.tril_indices(self.latent, self.latent, offset=-1)
        lower = hidden.new_zeros(len(images), self.latent, self.latent)
        lower[:, rows, columns] = self.below(hidden)
        return lower + torch.diag_embed(self.diagonal(hidden).exp())


class RiemannianAutoencoder(ConvolutionalAutoencoder):
    """The loss is the negative of the ELBO with the flow, of one draw (z_0, rho_0) per image:

        -log p(x, z_K) - log N(rho_K; 0, G(z_K)) + log q(z_0 | x) + log N(rho_0; 0, G(z_0)),

    where rho_0 is the momentum before tempering, so that the flow's log-determinant is cancelled by
    the initial momentum's temperature (2010.11518, section 3). ``terms`` has ||x - dec(z_K)||^2
    as reconstruction, and the rest as divergence.

    In training the metric is that of the batch. A finished model has its own, of the encodings of
    images it was trained on, as tensors that do not change: scoring adds nothing to them. Going
    back to training mode drops them.
    """

    not_private = (
        "an rhvae keeps encodings of images that it was trained on, which no noise is added to"
    )
    kept_images = MAX_CENTROIDS
    centroids: torch.Tensor
    matrices: torch.Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config, outputs=2 * config.latent)
        self.noise_size = 2 * config.latent
        self.metric_network = MetricNetwork(config)
        self.register_buffer("centroids", torch.zeros(0, config.latent))
        self.register_buffer("matrices", torch.zeros(0, config.latent, config.latent))

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.centroids, self.matrices = self.centroids[:0], self.matrices[:0]
        return super().train(mode)

    def posterior(self, images: torch.Tensor) -> Posterior:
        """Mean and log-variance of z_0, [images, latent] each."""
        mean, log_variance = self.encode(images).chunk(2, dim=1)
        return mean, log_variance

    def terms(
        self, images: torch.Tensor, posterior: Posterior, noise: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # The flow follows a gradient, which inference mode has none of; its tensors are copied.
        with torch.inference_mode(False), torch.set_grad_enabled(self.training):
            images, mean, log_variance, noise = (
                t.clone() for t in (images, *posterior, noise)
            )  # fmt: skip
            position, momentum = noise.chunk(2, dim=1)
            metric = self.metric(images, mean)
            start = mean + (0.5 * log_variance).exp() * position
            inverse = metric.inverse(start)
            z, rho, error = flow(
                start,
                draw_momentum(inverse, momentum),
                lambda at: self.potential(images, at),
                metric,
                self.config.rhvae,
            )
            # Every density but the reconstruction's, their constants cancelled.
            arrived = 0.5 * z.square().sum(1) + momentum_energy(metric.inverse(z), rho)
            drawn = 0.5 * (noise.square().sum(1) + log_variance.sum(1)) - 0.5 * log_det(inverse)
            return error, arrived - drawn

    def potential(self, images: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction errors at z, and the gradient in z of U = error + ||z||^2 / 2."""
        with torch.enable_grad():
            at = z if z.requires_grad else z.detach().requires_grad_()
            error = squared_error(images, self.decode(at))
            energy = error.sum() + 0.5 * at.square().sum()
            (gradient,) = torch.autograd.grad(energy, at, create_graph=z.requires_grad)
        return (error, gradient) if z.requires_grad else (error.detach(), gradient)

    def metric(self, images: torch.Tensor, mean: torch.Tensor) -> Metric:
        """The metric of a batch while the model is trained, then the model's own."""
        settings = self.config.rhvae
        centroids, matrices = (
            (mean, self.matrices_of(images)) if self.training else (self.centroids, self.matrices)
        )
        return Metric(centroids, matrices, settings.temperature, settings.regularization)

    def matrices_of(self, images: torch.Tensor) -> torch.Tensor:
        """M = L L^T of each image, [images, latent, latent]."""
        lower: torch.Tensor = self.metric_network(images)
        return lower @ lower.mT

    @torch.no_grad()
    def finish(self, images: torch.Tensor) -> None:
        """Make the model's own metric of images; asked in eval mode."""
        batches = torch.split(images, 100)
        self.centroids = torch.cat([self.posterior(batch)[0] for batch in batches])
        self.matrices = torch.cat([self.matrices_of(batch) for batch in batches])

    def put_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        for name in ("centroids", "matrices"):
            held = tensors.get(name)
            if held is not None and held.shape[1:] == getattr(self, name).shape[1:]:
                setattr(self, name, torch.empty_like(held, device=self.centroids.device))
        super().put_tensors(tensors)
