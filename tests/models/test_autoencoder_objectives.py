"""The loss of each autoencoder against closed forms and transcriptions of its paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_autoencoders import draws_of, pictures, small_autoencoder, small_config
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from raymia.models.autoencoders.vae import MmdConfig, build_autoencoder
from raymia.models.autoencoders.vae.wasserstein import kernel, squared_mmd

PIXELS, LATENT = 12, 3


class LinearDecoder(nn.Module):
    """W z + b, as images of 2 x 6 pixels."""

    def __init__(self, weight, bias):
        super().__init__()
        self.head = nn.Linear(LATENT, PIXELS)
        self.head.weight.data, self.head.bias.data = weight, bias

    def forward(self, latents):
        return self.head(latents).unflatten(1, (1, 2, 6))


class ExactEncoder(nn.Module):
    """Mean and log-variance of p(z|x) under that decoder, p(z) = N(0, I), variance 1/2."""

    def __init__(self, weight, bias):
        super().__init__()
        self.bias = bias
        precision = torch.eye(LATENT) + 2 * weight.T @ weight
        self.gain = torch.linalg.inv(precision) @ (2 * weight.T)
        self.log_variance = -precision.diagonal().log()

    def forward(self, images):
        mean = (images.flatten(1) - self.bias) @ self.gain.T
        return torch.cat([mean, self.log_variance.expand_as(mean)], dim=1)


def linear_autoencoder(objective, is_exact, **settings):
    """Orthogonal columns make the exact posterior's covariance diagonal, as the encoder's is."""
    torch.manual_seed(3)
    weight = torch.linalg.qr(torch.randn(PIXELS, LATENT))[0] * torch.tensor([0.5, 1.0, 1.5])
    bias = torch.rand(PIXELS)
    config = small_config(
        objective, image_shape=(1, 2, 6), latent=LATENT, channels=(4,), **settings
    )
    network = build_autoencoder(config).eval()
    network.decoder = LinearDecoder(weight, bias)
    if is_exact:
        network.encoder = ExactEncoder(weight, bias)
    return network.requires_grad_(False), weight, bias


def averaged(network, images, latent=LATENT):
    """The mean over draws, exact for a loss that is quadratic in the noise: over +-sqrt(d) e_i."""
    points = math.sqrt(latent) * torch.cat([torch.eye(latent), -torch.eye(latent)])
    posterior = network.posterior(images)
    rest = network.noise_size - latent
    terms = [
        network.terms(images, posterior, torch.cat([p, torch.zeros(rest)]).expand(len(images), -1))
        for p in points
    ]
    return [torch.stack(part).mean(0) for part in zip(*terms, strict=True)]


def evidence_of(images, weight, bias):
    """log p(x) of the linear model, without log(pi) / 2 per pixel that the loss leaves out."""
    covariance = weight @ weight.T + 0.5 * torch.eye(PIXELS)
    log_prob = MultivariateNormal(bias, covariance).log_prob(images.flatten(1))
    return log_prob + PIXELS / 2 * math.log(math.pi)


# ---------------------------------------------------------------------------- VAE, beta-VAE


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_linear_vae_has_the_loss_that_is_known(beta):
    """E ||x - W z - b||^2 = ||x - W mu - b||^2 + tr(W S W^T), and KL as torch computes it."""
    network, weight, bias = linear_autoencoder("beta_vae", is_exact=False, beta=beta)
    images = pictures(6, (1, 2, 6))
    mean, log_variance = network.posterior(images)
    residual = images.flatten(1) - mean @ weight.T - bias
    spread = (log_variance.exp() * (weight**2).sum(0)).sum(1)
    posterior = Independent(Normal(mean, (log_variance / 2).exp()), 1)
    prior = Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 1)
    reconstruction, divergence = averaged(network, images)
    torch.testing.assert_close(reconstruction, residual.square().sum(1) + spread)
    torch.testing.assert_close(divergence, beta * kl_divergence(posterior, prior))


def test_loss_under_the_exact_posterior_is_the_negative_log_likelihood():
    network, weight, bias = linear_autoencoder("vae", is_exact=True)
    images = pictures(6, (1, 2, 6))
    loss = sum(averaged(network, images))
    torch.testing.assert_close(loss, -evidence_of(images, weight, bias))


def test_training_loss_is_the_mean_of_what_is_scored():
    network = small_autoencoder("beta_vae")
    images = pictures(6, network.image_shape)
    noise = torch.randn((6, 5), generator=torch.Generator().manual_seed(5))
    scored = sum(network.terms(images, network.posterior(images), noise)).mean()
    trained = network.training_loss(images, torch.Generator().manual_seed(5))
    torch.testing.assert_close(trained, scored)


# ------------------------------------------------------------------------------ WAE-MMD


def kernel_by_hand(first, second, name, bandwidth):
    constant = 2 * len(first) * bandwidth**2
    squared = sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
    if name == "rbf":
        return math.exp(-squared / constant)
    scales = (0.1, 0.2, 0.5, 1, 2, 5, 10)
    return sum(s * constant / (s * constant + squared) for s in scales)


@pytest.fixture(params=[("imq", 1.0), ("rbf", 0.7)], ids=["imq", "rbf"])
def mmd(request):
    name, bandwidth = request.param
    return MmdConfig(kernel=name, bandwidth=bandwidth, weight=2.5)


def test_kernel_and_discrepancy_are_those_of_the_paper(mmd):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(5, 3)), rng.normal(1.0, 2.0, size=(5, 3))

    def k(a, b):
        return kernel_by_hand(a, b, mmd.kernel, mmd.bandwidth)

    table = [[k(a, b) for b in second] for a in first]
    as_tensors = torch.tensor(first), torch.tensor(second)
    np.testing.assert_allclose(kernel(*as_tensors, mmd), table, rtol=1e-12)
    within = sum(
        k(x[i], x[j]) / 20 for x in (first, second) for i in range(5) for j in range(5) if i != j
    )
    expected = within - 2 * np.mean(table)
    assert float(squared_mmd(*as_tensors, mmd)) == pytest.approx(expected, rel=1e-12)


def test_single_image_has_the_discrepancy_of_its_encoding_alone(mmd):
    network = small_autoencoder("wae_mmd", latent=3, mmd=mmd)
    images = pictures(4, network.image_shape)
    reconstruction, divergence = network.terms(images, network.posterior(images), torch.zeros(4, 0))
    prior = network.prior.double().numpy()
    pairs = np.mean([[kernel_by_hand(p, q, mmd.kernel, mmd.bandwidth) for q in prior[:1024:8]]
                     for p in prior[:1024:8]])  # fmt: skip
    whole = float(network.prior_mean)
    assert whole == pytest.approx(pairs, rel=0.05)
    for i, (image, latent) in enumerate(zip(images, network.encode(images), strict=True)):
        z = latent.double().numpy()
        own = kernel_by_hand(z, z, mmd.kernel, mmd.bandwidth)
        witness = np.mean([kernel_by_hand(z, p, mmd.kernel, mmd.bandwidth) for p in prior])
        assert float(divergence[i]) == pytest.approx(2.5 * (own - 2 * witness + whole), rel=1e-5)
        error = (image - network.decode(latent[None])[0]).square().sum()
        assert float(reconstruction[i]) == pytest.approx(float(error), rel=1e-5)
    assert (divergence > 0).all()


def test_sample_of_the_prior_is_standard_normal_and_always_the_same():
    one, other = (small_autoencoder("wae_mmd", latent=8).prior for _ in range(2))
    assert torch.equal(one, other)
    assert abs(float(one.mean())) < 4 / math.sqrt(one.numel())
    assert abs(float(one.var()) - 1) < 4 * math.sqrt(2 / one.numel())


def test_wasserstein_training_loss_is_of_the_batch(mmd):
    network = small_autoencoder("wae_mmd", mmd=mmd)
    images = pictures(6, network.image_shape)
    latents = network.encode(images)
    prior = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5))
    errors = (images - network.decode(latents)).square().sum((1, 2, 3))
    expected = errors.mean() + 2.5 * squared_mmd(latents, prior, mmd)
    found = network.training_loss(images, torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, expected)


# -------------------------------------------------------------------------------- RHVAE


def rhvae(n_lf, is_exact=True, **settings):
    chosen = {"eps_lf": 0.05, "temperature": 1.0, "regularization": 0.3, **settings}
    network, weight, bias = linear_autoencoder(
        "rhvae", is_exact=is_exact, rhvae={"n_lf": n_lf, **chosen}
    )
    torch.manual_seed(4)
    lower = torch.randn(7, LATENT, LATENT).tril()
    network.centroids, network.matrices = torch.randn(7, LATENT), lower @ lower.mT
    return network, weight, bias


def test_without_a_leapfrog_step_the_bound_is_that_of_a_vae():
    network, _, _ = rhvae(0, is_exact=False)
    plain, _, _ = linear_autoencoder("vae", is_exact=False)
    plain.load_state_dict(network.state_dict(), strict=False)
    images = pictures(6, (1, 2, 6))
    found, expected = averaged(network, images), averaged(plain, images)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(sum(found), sum(expected))


def test_without_a_leapfrog_step_every_draw_under_the_exact_posterior_is_the_likelihood():
    network, weight, bias = rhvae(0)
    images = pictures(6, (1, 2, 6))
    expected = -evidence_of(images, weight, bias)
    for draw in draws_of(6, 4, network.noise_size).unbind(1):
        loss = sum(network.terms(images, network.posterior(images), draw))
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta_zero_sqrt", [1.0, 0.6])
def test_bound_is_of_an_unbiased_estimate_of_the_likelihood(beta_zero_sqrt):
    """E exp(-loss) = p(x), whatever the flow, if its log-determinant is accounted for rightly
    (Caterini et al., 2018, section 3). The allowance is four standard errors."""
    network, weight, bias = rhvae(3, beta_zero_sqrt=beta_zero_sqrt)
    image = pictures(1, (1, 2, 6))
    images = image.expand(20_000, -1, -1, -1)
    noise = draws_of(20_000, 1, network.noise_size)[:, 0]
    loss = sum(network.terms(images, network.posterior(images), noise)).double()
    ratios = (-loss - evidence_of(image, weight, bias).double()).exp()
    assert float(ratios.std()) > 0.01, "the flow moves, so that there is something to account for"
    error = float(ratios.std()) / math.sqrt(len(ratios))
    assert float(ratios.mean()) == pytest.approx(1, abs=4 * error)
    assert float(loss.mean()) > -float(evidence_of(image, weight, bias)), "a bound from above"


def test_flow_is_followed_to_the_same_loss_in_training_and_after():
    """With the batch's own metric kept as the model's, both modes are one computation."""
    network = small_autoencoder("rhvae", normalization="none", rhvae={"n_lf": 2, "eps_lf": 0.02})
    images, noise = pictures(5, network.image_shape), draws_of(5, 1, network.noise_size)[:, 0]
    network.finish(images)
    after = network.terms(images, network.posterior(images), noise)
    in_training = network.train().terms(images, network.posterior(images), noise)
    for found, expected in zip(in_training, after, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_metric_of_a_finished_model_is_that_of_the_images_it_was_given():
    network = small_autoencoder("rhvae")
    images = pictures(6, network.image_shape)
    network.finish(images)
    torch.testing.assert_close(network.centroids, network.posterior(images)[0])
    lower = network.metric_network(images)
    assert (torch.diagonal(lower, dim1=1, dim2=2) > 0).all()
    assert torch.equal(lower, lower.tril())
    torch.testing.assert_close(network.matrices, lower @ lower.mT)
    assert len(network.train().centroids) == 0, "a model that is trained further has none yet"
