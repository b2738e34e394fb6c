"""Dynamics in an RHVAE's latent space: gradients, reversibility, volume, energy."""

from __future__ import annotations

import math

import pytest
import torch
from small_autoencoders import pictures, small_autoencoder

from raymia.models.autoencoders.vae import RhvaeConfig
from raymia.models.autoencoders.vae.hamiltonian import (
    Metric,
    draw_momentum,
    flow,
    leapfrog,
    log_det,
    momentum_energy,
    tempering,
    velocity,
)

LATENT, ROWS = 3, 4
DEFAULT_STEP = RhvaeConfig().eps_lf


@pytest.fixture(scope="module")
def metric():
    torch.manual_seed(0)
    lower = torch.randn(6, LATENT, LATENT, dtype=torch.float64).tril()
    centroids = torch.randn(6, LATENT, dtype=torch.float64)
    return Metric(centroids, lower @ lower.mT, temperature=1.2, regularization=0.2)


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(1)
    return torch.randn(2, ROWS, LATENT, dtype=torch.float64).unbind()


def potential(z):
    """U = sum of z^4 / 4 + ||z||^2 / 2, with the first part as reconstruction error."""
    return (z**4).sum(1) / 4, z**3 + z


def energy(z, rho, metric):
    inverse = metric.inverse(z)
    return (z**4).sum(1) / 4 + z.square().sum(1) / 2 + momentum_energy(inverse, rho)


def step(z, rho, metric, length):
    moved, end, _, _ = leapfrog(z, rho, potential(z)[1], potential, metric, length)
    return moved, end


def test_inverse_metric_is_that_of_the_paper(metric, start):
    z, _ = start
    for row, found in zip(z, metric.inverse(z), strict=True):
        expected = 0.2 * torch.eye(LATENT, dtype=torch.float64)
        for centroid, matrix in zip(metric.centroids, metric.matrices, strict=True):
            expected = expected + matrix * math.exp(-(float((row - centroid).norm()) ** 2) / 1.2**2)
        torch.testing.assert_close(found, expected)


def test_determinant_and_energy_are_torchs_own(metric, start):
    z, rho = start
    inverse = metric.inverse(z)
    torch.testing.assert_close(log_det(inverse), torch.logdet(inverse))
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(LATENT, dtype=torch.float64), precision_matrix=inverse
    )
    constant = LATENT / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(momentum_energy(inverse, rho), -normal.log_prob(rho) - constant)


def test_momenta_have_the_metric_as_covariance(metric, start):
    inverse = metric.inverse(start[0])
    columns = [
        draw_momentum(inverse, axis.expand(ROWS, -1))
        for axis in torch.eye(LATENT, dtype=torch.float64)
    ]
    root = torch.stack(columns, dim=2)
    torch.testing.assert_close(root @ root.mT, torch.linalg.inv(inverse))


def test_gradients_of_the_energy_are_its_finite_differences(metric, start):
    z, rho = start
    h = 1e-5
    for axis in torch.eye(LATENT, dtype=torch.float64):
        up, down = energy(z + h * axis, rho, metric), energy(z - h * axis, rho, metric)
        force = potential(z)[1] + metric.kinetic_gradient(z, rho)
        torch.testing.assert_close(force @ axis, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)
        up, down = energy(z, rho + h * axis, metric), energy(z, rho - h * axis, metric)
        rate = velocity(metric.inverse(z), rho)
        torch.testing.assert_close(rate @ axis, (up - down) / (2 * h), rtol=1e-6, atol=1e-8)


def test_gradient_of_the_decoders_potential_is_its_finite_difference():
    network = small_autoencoder("rhvae").double()
    images = pictures(ROWS, network.image_shape).double()
    torch.manual_seed(2)
    z = torch.randn(ROWS, 5, dtype=torch.float64)

    def at(position):
        decoded = network.decoder(position)
        error = (images - decoded).square().sum((1, 2, 3))
        return error + position.square().sum(1) / 2

    network.decode = network.decoder  # without the rounding to float32
    gradient = network.potential(images, z)[1]
    for axis in torch.eye(5, dtype=torch.float64):
        difference = (at(z + 1e-5 * axis) - at(z - 1e-5 * axis)) / 2e-5
        torch.testing.assert_close((gradient @ axis).double(), difference, rtol=1e-3, atol=1e-3)


def test_step_back_returns_to_the_start(metric, start):
    z, rho = start
    moved, end = step(z, rho, metric, DEFAULT_STEP)
    back, turned = step(moved, -end, metric, DEFAULT_STEP)
    assert float((moved - z).norm()) > DEFAULT_STEP
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(-turned, rho, rtol=0, atol=1e-9)


def test_what_ends_the_iterations_too_early_falls_with_the_fourth_power_of_the_step(metric, start):
    """Three iterations of each implicit equation; half the step, a sixteenth of the error."""
    errors = []
    for length in (0.02, 0.01):
        moved, end = step(*start, metric, length)
        errors.append(float((step(moved, -end, metric, length)[0] - start[0]).norm()))
    assert errors[0] / errors[1] > 12


def test_step_keeps_volume(metric, start):
    """The determinant of the step's Jacobian is 1: what the bound takes for granted."""

    def joined(state):
        moved, end = step(state[None, :LATENT], state[None, LATENT:], metric, DEFAULT_STEP)
        return torch.cat([moved[0], end[0]])

    for z, rho in zip(*start, strict=True):
        jacobian = torch.autograd.functional.jacobian(joined, torch.cat([z, rho]))
        assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-9)
        assert float((jacobian - torch.eye(2 * LATENT)).norm()) > DEFAULT_STEP


def test_energy_is_kept_to_second_order(metric, start):
    """Half the step, over the same time, a quarter of the error."""
    errors = []
    for count in (20, 40):
        z, rho = start
        for _ in range(count):
            z, rho = step(z, rho, metric, 0.4 / count)
        errors.append((energy(z, rho, metric) - energy(*start, metric)).abs().max())
    assert float(errors[0] / errors[1]) == pytest.approx(4, rel=0.25)


def test_tempering_rises_from_the_start_to_one():
    roots = tempering(RhvaeConfig(n_lf=4, beta_zero_sqrt=0.3))
    assert roots[0] == pytest.approx(0.3)
    assert roots[-1] == 1
    assert roots == sorted(roots)
    for k, root in enumerate(roots):  # 2010.11518, quadratic tempering
        assert 1 / root == pytest.approx((1 - 1 / 0.3) * k**2 / 16 + 1 / 0.3)
    assert tempering(RhvaeConfig(n_lf=0)) == [1.0]


def test_flow_cools_the_momentum_by_what_it_heated(metric, start):
    """As if in steps of no length: the position stays, and the momentum ends as it was drawn."""
    z, rho = start
    config = RhvaeConfig(n_lf=3, eps_lf=1e-12)
    arrived, momentum, error = flow(z, rho, potential, metric, config)
    torch.testing.assert_close(arrived, z)
    torch.testing.assert_close(momentum, rho)
    torch.testing.assert_close(error, potential(z)[0])
