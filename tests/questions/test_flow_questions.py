"""What flow-matching models are asked, against Gaussian data, whose best velocity is known exactly;
the derivation is in docs/images.md."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_image_questions import MEAN, SHAPE, SPREAD, clean_of, noise_of, records

from raymia.attacks.images.base import png_bytes
from raymia.attacks.images.loss import LossPerByte
from raymia.attacks.images.path import PeakError
from raymia.attacks.images.proximal import SimAMc
from raymia.evidence.image import ImageEvidence, ImageModelEvidence
from raymia.models.denoisers.model import Denoiser
from raymia.models.denoisers.path import Diffusion, Flow
from raymia.prepare.generate_images import generate_images
from raymia.questions.averaged import AveragedQuestion
from raymia.questions.base import Item
from raymia.questions.captions import CaptionQuestion, OtherCaptionQuestion
from raymia.questions.images import DenoisingQuestion, Neighborhood
from raymia.questions.noiseless import (
    CleanQuestion,
    InversionMapQuestion,
    InversionQuestion,
    NormalizedProximalQuestion,
    ProximalQuestion,
)

SHARES = (0.05, 0.3, 0.9)


def velocity(noisy: np.ndarray, s: float, mean: float = MEAN) -> np.ndarray:
    """E[epsilon - x | x_s] for elements that are independent and normal with a mean and SPREAD."""
    away = noisy - (1 - s) * mean
    return s * away / variance(s) - (mean + (1 - s) * SPREAD**2 * away / variance(s))


def variance(s: float) -> float:
    """Of the elements of x_s."""
    return (1 - s) ** 2 * SPREAD**2 + s**2


def noise_seen(noisy: np.ndarray, s: float) -> np.ndarray:
    """E[epsilon | x_s]."""
    return s * (noisy - (1 - s) * MEAN) / variance(s)


def gaussian_flow(batch_images: int = 16) -> Denoiser:
    def network(noisy, timesteps, _):
        rows = [
            velocity(x.double().numpy(), float(t) / 1000)
            for x, t in zip(noisy, timesteps, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).float()

    return Denoiser(network, Flow(1000), shape=SHAPE, latent_shape=SHAPE, batch_images=batch_images)


def question(**changes) -> DenoisingQuestion:
    given = {"seed": 0, "neighborhood": None, "timesteps": SHARES, "draws": 2, "noise": "shared"}
    return DenoisingQuestion(**given | changes)


def asked(of, items=None, batch_images=16):
    return of.ask(gaussian_flow(batch_images), items or records(3)).to_pylist()


def squares(residuals) -> list[float]:
    return [float(np.mean(r**2)) for r in residuals]


def test_the_error_is_that_of_the_velocity():
    for item, row in zip(records(3), asked(question()), strict=True):
        expected, clean = [], clean_of(item)
        for s in SHARES:
            for draw in range(2):
                noise = noise_of(item, s, draw)
                expected.append(noise - clean - velocity((1 - s) * clean + s * noise, s))
        np.testing.assert_allclose(row["l2"], squares(expected), rtol=1e-4)


@pytest.mark.parametrize("s", [0.1, 0.5, 0.9])
def test_the_mean_error_over_draws_is_the_closed_form(s):
    """E|r|^2 = ((1 - s) sigma^2 / V)^2 + (s / V)^2 mean (x - m)^2, V = (1 - s)^2 sigma^2 + s^2."""
    (item,), draws = records(1), 1000
    (row,) = asked(question(timesteps=(s,), draws=draws), [item], batch_images=256)
    expected = ((1 - s) * SPREAD**2 / variance(s)) ** 2
    expected += (s / variance(s)) ** 2 * np.mean((clean_of(item) - MEAN) ** 2)
    assert abs(np.mean(row["l2"]) - expected) < 4 * np.std(row["l2"]) / np.sqrt(draws)


def test_the_curve_of_errors_has_its_peak_where_the_path_says_nothing_of_the_velocity():
    """sigma^2 / V on a record as far from the mean as records are: 1 + sigma^2 at its peak."""
    near, far = (round((MEAN + sign * SPREAD + 1) / 2 * 255) for sign in (-1, 1))
    pixels = np.array([near, far] * (np.prod(SHAPE) // 2), np.uint8)
    record = Item("typical", 0, {"pixels": pixels.tobytes(), "caption": ""})
    peak = SPREAD**2 / (1 + SPREAD**2)
    asked_at = (0.04, peak, 0.3, 0.6)
    of = question(timesteps=asked_at, draws=400)
    terms = of.lay_out(of.ask(gaussian_flow(256), [record]), ["typical"])
    curve = terms.loss.mean(axis=-1)[0]
    expected = [SPREAD**2 / variance(s) for s in asked_at]
    np.testing.assert_allclose(curve, expected, rtol=0.03)
    given = ImageEvidence(pixels.reshape(1, *SHAPE), ImageModelEvidence(terms))
    assert asked_at[int(curve.argmax())] == peak
    np.testing.assert_allclose(PeakError().score(given), -(1 + SPREAD**2), rtol=0.03)
    bytes_of_it = png_bytes(given.images[0])
    np.testing.assert_allclose(
        LossPerByte().score(given), -np.mean(expected) / bytes_of_it, rtol=0.03
    )


def test_neighbors_are_asked_with_the_noise_of_their_record():
    (record,) = records(1)
    own = question(timesteps=(0.3,), draws=1)
    around = question(timesteps=(0.3,), draws=1, neighborhood=Neighborhood("contrast", (1.0,)))
    neighbor = type(record)(record.record_id, 1, record.payload)
    (alone,), (beside,) = asked(own, [record]), asked(around, [neighbor])
    np.testing.assert_allclose(alone["l2"], beside["l2"], rtol=1e-3)


@pytest.mark.parametrize("kind", [ProximalQuestion, NormalizedProximalQuestion])
def test_the_proximal_error_is_that_of_the_velocity_along_the_noise_first_seen(kind):
    for item, row in zip(records(3), asked(kind(SHARES)), strict=True):
        clean = clean_of(item)
        first = noise_seen(clean, 0.01)
        if kind is NormalizedProximalQuestion:
            first = first * np.sqrt(2 / np.pi) / np.abs(first).mean()
        expected = [first - clean - velocity((1 - s) * clean + s * first, s) for s in SHARES]
        np.testing.assert_allclose(row["l2"], squares(expected), rtol=1e-3)


def test_the_noise_seen_in_the_record_is_the_score_times_the_share():
    for item, row in zip(records(3), asked(CleanQuestion(SHARES)), strict=True):
        expected = [noise_seen(clean_of(item), s) for s in SHARES]
        np.testing.assert_allclose(row["l2"], squares(expected), rtol=1e-4)


def test_the_noise_seen_on_average_is_the_slope_of_the_density_at_the_record():
    """s (1 - s) (x - m) / V, whatever the draws: opposite draws cancel in a linear model."""
    for pairs in (1, 3):
        rows = asked(AveragedQuestion(SHARES, pairs, seed=0))
        for item, row in zip(records(3), rows, strict=True):
            expected = [noise_seen((1 - s) * clean_of(item), s) for s in SHARES]
            np.testing.assert_allclose(row["l2"], squares(expected), rtol=1e-4)


def test_the_residual_of_the_mean_velocity_is_the_noise_seen_on_average():
    """||x + mean v||^2 (1 - s)^2, over a draw and its opposite; and over the image's complexity."""
    (item,), s = records(1), 0.3
    of = AveragedQuestion((s,), 1, seed=0)
    clean, noise = clean_of(item), noise_of(item, s, 0)
    both = [velocity((1 - s) * clean + sign * s * noise, s) for sign in (1, -1)]
    statistic = float(np.mean((clean + np.mean(both, axis=0)) ** 2))
    averaged = of.lay_out(of.ask(gaussian_flow(), [item]), [item.record_id])
    np.testing.assert_allclose(averaged.values["l2"], [[[(1 - s) ** 2 * statistic]]], rtol=1e-4)
    pixels = np.frombuffer(item.payload["pixels"], np.uint8).reshape(1, *SHAPE)
    given = ImageEvidence(pixels, ImageModelEvidence(terms=averaged, averaged=averaged))
    calibrated = SimAMc(p=2, per_byte=True).score(given)
    expected = (1 - s) ** 2 * statistic / png_bytes(pixels[0])
    np.testing.assert_allclose(calibrated, -expected, rtol=1e-4)


def test_the_inversion_goes_along_the_velocity_by_eulers_steps():
    for item, row in zip(records(3), asked(InversionQuestion(0.1, 0.02)), strict=True):
        reached = clean_of(item)
        for n in range(5):
            reached = reached + 0.02 * velocity(reached, 0.02 * n)
        further = reached + 0.02 * velocity(reached, 0.1)
        back = further - 0.02 * velocity(further, 0.12)
        np.testing.assert_allclose(row["l2"], squares([back - reached]), rtol=1e-2)


def test_the_map_of_the_inversion_is_the_curvature_of_the_path():
    """|x''(s)| h^2 = sigma |x - m| h^2 / V^(3/2), as steps h become small."""
    s, step = 0.1, 0.005
    for item, row in zip(records(3), asked(InversionMapQuestion(s, step)), strict=True):
        away = np.abs(clean_of(item) - MEAN).ravel()
        expected = step**2 * SPREAD * away / variance(s) ** 1.5
        np.testing.assert_allclose(row["map"], expected, rtol=0.05, atol=1e-6)


MEANS = {"a b c d": 0.3, "a b": 0.0, "": MEAN, "e": -0.4}
"""Of the images with each caption, as the flow below has learned them."""


def captioned_flow() -> Denoiser:
    def network(noisy, timesteps, condition):
        rows = [
            velocity(x.double().numpy(), float(t) / 1000, float(mean))
            for x, t, mean in zip(noisy, timesteps, condition["mean"], strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).float()

    return Denoiser(
        network, Flow(1000), shape=SHAPE, latent_shape=SHAPE, batch_images=64,
        embed=lambda captions: {"mean": torch.tensor([MEANS[c] for c in captions])},
    )  # fmt: skip


def test_what_another_caption_costs_is_the_closed_form():
    """E|r_c'|^2 - E|r_c|^2 = (s / V)^2 [mean (x - m_c')^2 - mean (x - m_c)^2]."""
    (record,), s = records(1), 0.3
    shorter = CaptionQuestion((s,), seed=0, reductions=2)
    another = OtherCaptionQuestion((s,), 0, ("e",), others=1)
    about = [Item(f"r{n}", 0, record.payload) for n in range(200)]  # one image, and 200 draws
    errors = {}
    for of, captions in ((shorter, ("a b c d", "a b", "")), (another, ("e",))):
        for index, caption in zip(of.indices(), captions, strict=True):
            items = [Item(one.record_id, index, one.payload) for one in about]
            rows = of.ask(captioned_flow(), items).to_pylist()
            errors[caption] = np.array([row["l2"][0] for row in rows])

    def away(caption):
        return np.mean((clean_of(record) - MEANS[caption]) ** 2)

    for caption in ("a b", "", "e"):
        gaps = errors[caption] - errors["a b c d"]
        expected = (s / variance(s)) ** 2 * (away(caption) - away("a b c d"))
        assert abs(gaps.mean() - expected) < 4 * gaps.std() / np.sqrt(len(gaps)), caption
        assert abs(expected) > 8 * gaps.std() / np.sqrt(len(gaps)), "draws too few to tell"


def test_what_the_best_flow_generates_is_distributed_as_its_data():
    images = generate_images(
        gaussian_flow(64), range(200), seed=0, steps=50, batch=100, progress=lambda *_: None
    )
    values = images.astype(float) / 255 * 2 - 1
    assert abs(values.mean() - MEAN) < 0.02
    assert abs(values.std() - SPREAD) < 0.03


def test_timesteps_are_shares_of_a_thousand():
    whole = asked(question(timesteps=(50, 300), draws=1))
    for item, row in zip(records(3), whole, strict=True):
        expected = []
        for t in (50, 300):
            clean, noise, s = clean_of(item), noise_of(item, t, 0), t / 1000
            expected.append(noise - clean - velocity((1 - s) * clean + s * noise, s))
        np.testing.assert_allclose(row["l2"], squares(expected), rtol=1e-4)


@pytest.mark.parametrize(("steps", "share", "timestep"), [(1000, 0.15, 150), (200, 0.999, 199)])
def test_a_share_is_a_timestep_of_whatever_schedule(steps, share, timestep):
    alphas = torch.linspace(0.99, 0.01, steps, dtype=torch.float64)
    assert Diffusion(alphas, "epsilon").timestep(share) == timestep
    assert Diffusion(alphas, "epsilon").timestep(timestep) == timestep
    assert Flow(steps).timestep(share) == pytest.approx(share * steps)
