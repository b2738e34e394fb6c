"""Hamiltonian dynamics on the latent space of an RHVAE.

Chadebec et al., arXiv 2010.11518, sections 2 and 3. With U(z) = -log p(x, z) and the inverse metric
G^-1(z), the energy of a position z and a momentum rho is

    H(z, rho) = U(z) + 1/2 rho^T G^-1(z) rho + 1/2 log det G(z).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from raymia.models.autoencoders.vae.config import RhvaeConfig
from raymia.models.autoencoders.vae.network import squared_distances

FIXED_POINT_STEPS = 3
"""Iterations that solve each implicit equation of the generalized leapfrog."""

Potential = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""From positions [rows, latent] to the reconstruction errors there, [rows], and the gradient of U,
[rows, latent]."""


@dataclass(frozen=True)
class Metric:
    """The inverse metric G^-1(z) = sum_i M_i exp(-||z - c_i||^2 / T^2) + lambda I.

    Attributes
    ----------
    centroids : c_i, float32 [centroids, latent].
    matrices : M_i = L_i L_i^T, float32 [centroids, latent, latent].
    temperature, regularization : T and lambda.
    """

    centroids: torch.Tensor
    matrices: torch.Tensor
    temperature: float
    regularization: float

    def inverse(self, z: torch.Tensor) -> torch.Tensor:
        """G^-1 at positions [rows, latent]; [rows, latent, latent]."""
        identity = torch.eye(z.shape[1], device=z.device, dtype=z.dtype)
        weighted = (self._weights(z) @ self.matrices.flatten(1)).reshape(-1, *identity.shape)
        return weighted + self.regularization * identity

    def kinetic_gradient(self, z: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
        """Gradient in z of 1/2 rho^T G^-1(z) rho + 1/2 log det G(z), [rows, latent].

        With w_i the weight of centroid i it is ``-1/T^2 sum_i w_i (rho^T M_i rho - tr G M_i)
        (z - c_i)``.
        """
        cometric = rho[:, :, None] * rho[:, None, :] - torch.linalg.inv(self.inverse(z))
        pulls = self._weights(z) * (cometric.flatten(1) @ self.matrices.flatten(1).T)
        moment: torch.Tensor = pulls.sum(1, keepdim=True) * z - pulls @ self.centroids
        return -moment / self.temperature**2

    def _weights(self, z: torch.Tensor) -> torch.Tensor:
        return (-squared_distances(z, self.centroids) / self.temperature**2).exp()


def velocity(inverse: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """Gradient of the energy in rho: G^-1 rho, [rows, latent]."""
    product: torch.Tensor = (inverse @ rho[:, :, None])[:, :, 0]
    return product


def log_det(inverse: torch.Tensor) -> torch.Tensor:
    """log det of positive definite matrices, [rows]."""
    factor: torch.Tensor = torch.linalg.cholesky(inverse)
    return 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)


def draw_momentum(inverse: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Turn standard normal noise [rows, latent] into momenta of N(0, G).

    With G^-1 = C C^T, the momentum C^-T noise has the covariance G.
    """
    factor: torch.Tensor = torch.linalg.cholesky(inverse)
    rho: torch.Tensor = torch.linalg.solve_triangular(factor.mT, noise[:, :, None], upper=True)
    return rho[:, :, 0]


def momentum_energy(inverse: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """-log N(rho; 0, G) without its constant: 1/2 rho^T G^-1 rho + 1/2 log det G, [rows]."""
    return 0.5 * (rho * velocity(inverse, rho)).sum(1) - 0.5 * log_det(inverse)


def tempering(config: RhvaeConfig) -> list[float]:
    """Square roots of the inverse temperatures before, and after each leapfrog step.

    Quadratic tempering: ``1 / sqrt(beta_k) = (1 - 1 / sqrt(beta_0)) (k / K)^2 + 1 / sqrt(beta_0)``;
    it ends at 1. Without a step there is nothing to cool.
    """
    if config.n_lf == 0:
        return [1.0]
    start = 1 / config.beta_zero_sqrt
    shares = [k / config.n_lf for k in range(config.n_lf + 1)]
    return [1 / ((1 - start) * share**2 + start) for share in shares]


def leapfrog(
    z: torch.Tensor,
    rho: torch.Tensor,
    force: torch.Tensor,
    potential: Potential,
    metric: Metric,
    step: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step of the generalized leapfrog (Girolami and Calderhead, 2011, equations 16 to 18).

    Parameters
    ----------
    force : gradient of U at z.

    Returns
    -------
    The new position and momentum, and the reconstruction error and the gradient of U there.
    """
    half = rho
    for _ in range(FIXED_POINT_STEPS):
        half = rho - 0.5 * step * (force + metric.kinetic_gradient(z, half))
    before = velocity(metric.inverse(z), half)
    moved = z
    for _ in range(FIXED_POINT_STEPS):
        moved = z + 0.5 * step * (before + velocity(metric.inverse(moved), half))
    error, new_force = potential(moved)
    end = half - 0.5 * step * (new_force + metric.kinetic_gradient(moved, half))
    return moved, end, error, new_force


def flow(
    z: torch.Tensor, rho: torch.Tensor, potential: Potential, metric: Metric, config: RhvaeConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Follow the tempered flow from a position and a momentum drawn from N(0, G).

    Returns
    -------
    The last position, the last momentum, and the reconstruction error at the position.
    """
    roots = tempering(config)
    rho = rho / roots[0]
    error, force = potential(z)
    for before, after in pairwise(roots):
        z, rho, error, force = leapfrog(z, rho, force, potential, metric, config.eps_lf)
        rho = rho * (before / after)
    return z, rho, error
