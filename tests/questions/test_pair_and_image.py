"""Which part of a pair of image and caption was trained on: the table of docs/images.md, by models
that are the best there are for what they were trained on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_image_questions import ALPHAS, MEAN, SHAPE, SPREAD, clean_of

from raymia.attacks.images.captions import Pairing, Uncaptioned
from raymia.evidence.image import ImageEvidence, ImageModelEvidence
from raymia.models.denoisers.model import Denoiser
from raymia.models.denoisers.path import Diffusion, Flow
from raymia.questions.base import Item
from raymia.questions.captions import CaptionQuestion, OtherCaptionQuestion

EACH = 5
GROUPS = ("at times without its caption", "with its caption", "without a caption", "never")
"""How the images were trained on."""
SHARES = (0.2, 0.4, 0.6)
BY_HEART = 0.05
"""Standard deviation of what is known about an image that was trained on."""


def best_noise(noisy, signal, sigma, images):
    """E[epsilon | x_t], where half of the images are those known by heart, and half are others."""
    parts = [(0.5, MEAN, SPREAD), *((0.5 / len(images), image, BY_HEART) for image in images)]
    logs, seen = [], []
    for weight, mean, spread in parts:
        variance = (signal * spread) ** 2 + sigma**2
        away = noisy - signal * mean
        logs.append(math.log(weight) - np.sum(away**2 / variance + math.log(variance)) / 2)
        seen.append(sigma * away / variance)
    shares = np.exp(np.array(logs) - max(logs))
    return np.tensordot(shares / shares.sum(), np.array(seen), 1)


def trained_on(path, pairs):
    """The best model of images by caption; a caption that it was never told is to it as none."""
    known: dict[str, list[np.ndarray]] = {"": []}
    for image, caption in pairs:
        known.setdefault(caption, []).append(image)
    names = [*known]

    def network(noisy, timesteps, condition):
        rows = [
            best_noise(x.double().numpy(), float(a), float(s), known[names[int(n)]])
            for x, a, s, n in zip(
                noisy, *path.coefficients(timesteps), condition["name"], strict=True
            )
        ]
        noise = torch.from_numpy(np.stack(rows)).float()
        if isinstance(path, Flow):
            return (noise - noisy) / path.coefficients(timesteps)[0]
        return noise

    return Denoiser(
        network, path, shape=SHAPE, latent_shape=SHAPE, batch_images=64,
        embed=lambda captions: {
            "name": torch.tensor([names.index(c if c in known else "") for c in captions])
        },
    )  # fmt: skip


def answered(model, records):
    ids = [one.record_id for one in records]
    found = []
    for of in (CaptionQuestion(SHARES, 0, 2), OtherCaptionQuestion(SHARES, 0, ("x", "y z"), 2)):
        about = [Item(r.record_id, n, r.payload) for r in records for n in of.indices()]
        found.append(of.lay_out(of.ask(model, about), ids))
    own, others = found
    return ImageModelEvidence(terms=own, captions=own, other_captions=others)


PATHS = {"ddpm": Diffusion(ALPHAS, "epsilon"), "flow": Flow(1000)}


@pytest.fixture(scope="module", params=PATHS)
def evidence(request):
    """Of a model and its base, on all groups, one after another."""
    draws = np.random.default_rng(0)
    images = np.clip(draws.normal(MEAN, SPREAD, (len(GROUPS) * EACH, *SHAPE)), -1, 1)
    pixels = np.round((images + 1) / 2 * 255).astype(np.uint8)
    records = [
        Item(f"r{n}", 0, {"pixels": one.tobytes(), "caption": f"number {n}"})
        for n, one in enumerate(pixels)
    ]
    first, second, third, _ = (records[n * EACH :][:EACH] for n in range(len(GROUPS)))
    with_caption = [(clean_of(one), one.payload["caption"]) for one in first + second]
    without = [(clean_of(one), "") for one in first + third]
    model, base = (
        trained_on(PATHS[request.param], pairs) for pairs in (with_caption + without, [])
    )
    return ImageEvidence(pixels, answered(model, records), answered(base, records))


@pytest.mark.parametrize("with_base", [False, True])
def test_the_pair_is_told_from_the_image_alone_and_both_from_what_was_never_seen(
    evidence, with_base
):
    given = evidence if with_base else ImageEvidence(evidence.images, evidence.target)
    pairing, uncaptioned = (
        dict(zip(GROUPS, attack.score(given).reshape(-1, EACH), strict=True))
        for attack in (Pairing(), Uncaptioned())
    )
    assert_above(pairing, GROUPS[:2], GROUPS[2:])
    assert_above(uncaptioned, (GROUPS[0], GROUPS[2]), (GROUPS[1], GROUPS[3]))


def assert_above(scores, high, low):
    assert min(scores[name].min() for name in high) > max(scores[name].max() for name in low)
