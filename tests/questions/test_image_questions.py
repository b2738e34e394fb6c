"""What image models are asked, against Gaussian data, whose best denoiser is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raymia.models.denoisers.model import Denoiser
from raymia.models.denoisers.path import Diffusion
from raymia.questions.asking.images import distances, low_pass
from raymia.questions.averaged import AveragedQuestion
from raymia.questions.base import Item, evidence_key
from raymia.questions.captions import (
    NO_OTHER,
    CaptionQuestion,
    OtherCaptionQuestion,
    reduced,
)
from raymia.questions.images import DenoisingQuestion, Neighborhood
from raymia.questions.noiseless import (
    CleanQuestion,
    InversionMapQuestion,
    InversionQuestion,
    NormalizedProximalQuestion,
    ProximalQuestion,
)
from raymia.util.draws import normals, stream_key

ALPHAS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
SHAPE = (1, 8, 8)
MEAN, SPREAD = 0.1, 0.4
TIMESTEPS = (20, 150, 400)


def best_noise(noisy: np.ndarray, t: int) -> np.ndarray:
    """E[epsilon | x_t] for elements that are independent and normal with MEAN and SPREAD."""
    kept = float(ALPHAS[t])
    return np.sqrt(1 - kept) * (noisy - np.sqrt(kept) * MEAN) / (kept * SPREAD**2 + 1 - kept)


def gaussian_denoiser(batch_images: int = 16) -> Denoiser:
    def network(noisy, timesteps, _):
        rows = [
            best_noise(x.double().numpy(), int(t)) for x, t in zip(noisy, timesteps, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).float()

    return Denoiser(
        network, Diffusion(ALPHAS, "epsilon"), shape=SHAPE, latent_shape=SHAPE,
        batch_images=batch_images,
    )  # fmt: skip


def records(count: int) -> list[Item]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, *SHAPE), np.uint8)
    return [
        Item(f"r{i}", 0, {"pixels": image.tobytes(), "caption": "a b c d"})
        for i, image in enumerate(pixels)
    ]


def clean_of(item: Item) -> np.ndarray:
    pixels = np.frombuffer(item.payload["pixels"], np.uint8).reshape(SHAPE)
    return pixels / 255 * 2 - 1


def noise_of(item: Item, t: int, draw: int, neighbor: int = 0) -> np.ndarray:
    key = stream_key(0, "noise", item.record_id, neighbor, t, draw)
    return normals(torch.tensor([key]), int(np.prod(SHAPE)))[0].double().numpy().reshape(SHAPE)


def probe(**changes) -> DenoisingQuestion:
    made = DenoisingQuestion(
        seed=0, neighborhood=None, timesteps=TIMESTEPS, draws=2, noise="shared"
    )
    return replace(made, **changes)


def test_denoising_errors_are_those_of_the_best_denoiser():
    items = records(5)
    table = probe().ask(gaussian_denoiser(), items).to_pylist()
    for item, row in zip(items, table, strict=True):
        assert (row["record_id"], row["neighbor"], row["error"]) == (item.record_id, 0, None)
        expected = []
        for t in TIMESTEPS:
            kept = float(ALPHAS[t])
            for draw in range(2):
                noise = noise_of(item, t, draw)
                noisy = np.sqrt(kept) * clean_of(item) + np.sqrt(1 - kept) * noise
                expected.append(noise - best_noise(noisy, t))
        np.testing.assert_allclose(row["l2"], [np.mean(r**2) for r in expected], rtol=1e-4)
        np.testing.assert_allclose(row["l4"], [np.mean(r**4) for r in expected], rtol=1e-4)


def test_the_mean_error_over_draws_is_the_closed_form():
    """E|eps - eps*|^2 = (abar s^2 / V)^2 + (1 - abar) abar mean (x - m)^2 / V^2."""
    (item,), t, draws = records(1), 150, 1000
    row = probe(timesteps=(t,), draws=draws).ask(gaussian_denoiser(256), [item]).to_pylist()[0]
    kept = float(ALPHAS[t])
    variance = kept * SPREAD**2 + 1 - kept
    expected = (kept * SPREAD**2 / variance) ** 2
    expected += (1 - kept) * kept * np.mean((clean_of(item) - MEAN) ** 2) / variance**2
    error = np.std(row["l2"]) / np.sqrt(draws)
    assert abs(np.mean(row["l2"]) - expected) < 4 * error


def test_a_record_and_its_neighbors_share_their_noise_unless_told_otherwise():
    (record,) = records(1)
    hood = Neighborhood("crop", (0.9, 0.8))
    items = [Item("r0", n, record.payload) for n in (1, 2)]
    seen: list[torch.Tensor] = []

    def network(noisy, *_):
        seen.append(noisy.clone())
        return torch.zeros_like(noisy)

    model = Denoiser(
        network, Diffusion(ALPHAS, "epsilon"), shape=SHAPE, latent_shape=SHAPE, batch_images=16
    )
    probe(neighborhood=hood, timesteps=(150,), draws=1).ask(model, items)
    probe(neighborhood=hood, timesteps=(150,), draws=1, noise="independent").ask(model, items)
    kept = float(ALPHAS[150])
    images = probe(neighborhood=hood).images(model, items).numpy() * 2 - 1
    shared, independent = (
        [
            (x.numpy() - np.sqrt(kept) * clean) / np.sqrt(1 - kept)
            for x, clean in zip(s, images, strict=True)
        ]
        for s in seen
    )
    np.testing.assert_allclose(shared[0], shared[1], atol=1e-4)
    np.testing.assert_allclose(shared[0], noise_of(record, 150, 0), atol=1e-4)
    for n, found in enumerate(independent, start=1):
        np.testing.assert_allclose(found, noise_of(record, 150, 0, n), atol=1e-4)


@pytest.mark.parametrize("batch_images", [1, 3, 7, 64])
def test_answers_depend_on_neither_batches_nor_order(batch_images):
    items = records(7)
    whole = {r["record_id"]: r for r in probe().ask(gaussian_denoiser(16), items).to_pylist()}
    found = probe().ask(gaussian_denoiser(batch_images), items[::-1]).to_pylist()
    assert [r["record_id"] for r in found] == [i.record_id for i in items[::-1]]
    for row in found:
        np.testing.assert_allclose(row["l2"], whole[row["record_id"]]["l2"], rtol=1e-6)


@pytest.mark.parametrize(
    "of",
    [
        probe(),
        probe(neighborhood=Neighborhood("contrast", (0.5, 1.5))),
        InversionQuestion(100, 20),
        InversionMapQuestion(0.1, 0.02),
        ProximalQuestion(TIMESTEPS),
        NormalizedProximalQuestion(TIMESTEPS),
        CleanQuestion(TIMESTEPS),
        AveragedQuestion(TIMESTEPS, 2, seed=0),
        CaptionQuestion(TIMESTEPS, 0, 2),
        OtherCaptionQuestion(TIMESTEPS, 0, ("x", "y z"), 2),
    ],
    ids=lambda of: of.name,
)
def test_as_many_passes_are_counted_as_the_network_is_asked(of):
    model, asked = gaussian_denoiser(), []
    network = model.network
    model.network = lambda noisy, *given: asked.append(len(noisy)) or network(noisy, *given)
    of.ask(model, [Item(r.record_id, n, r.payload) for r in records(3) for n in of.indices()])
    assert sum(asked) == 3 * len(of.indices()) * of.passes


@pytest.mark.parametrize(
    ("of", "each"),
    [
        (probe(neighborhood=Neighborhood("contrast", tuple(np.linspace(0.1, 2, 10)))), 10),
        (CaptionQuestion(timesteps=TIMESTEPS, seed=0, reductions=4), 5),
    ],
)
def test_what_shares_a_records_noise_is_asked_together_and_it_is_drawn_once(of, each, monkeypatch):
    """Though neither 10 neighbors nor 5 captions of each fill a pass of 64 images."""
    drawn: list[int] = []

    def counted(keys, count):
        drawn.extend(keys.tolist())
        return normals(keys, count)

    monkeypatch.setattr("raymia.questions.asking.images.normals", counted)
    about = [Item(r.record_id, n, r.payload) for r in records(13) for n in of.indices()]
    assert len(about) == 13 * each
    rows = of.ask(gaussian_denoiser(64), about)
    assert len(drawn) == len({*drawn}) == 13 * len(of.grid_steps) * of.grid_draws
    assert rows == of.ask(gaussian_denoiser(7), about), "to the last bit"


def test_neighbors_are_the_records_perturbed():
    from raymia.perturbations.kinds import perturb

    (record,) = records(1)
    hood = Neighborhood("blur", (0.5, 1.5))
    asked = probe(neighborhood=hood)
    assert list(asked.indices()) == [1, 2]
    image = torch.from_numpy((clean_of(record) + 1) / 2).float()[None]
    made = asked.images(gaussian_denoiser(), [Item("r0", n, record.payload) for n in (2, 1)])
    for row, strength in zip(made, (1.5, 0.5), strict=True):
        torch.testing.assert_close(row[None], perturb(image, "blur", strength, torch.tensor([0])))


def test_a_change_of_anything_that_matters_changes_the_key():
    crop, other = Neighborhood("crop", (0.9,)), Neighborhood("crop", (0.8,))
    changes = [
        {}, {"seed": 1}, {"timesteps": (20,)}, {"draws": 1}, {"noise": "independent"},
        {"neighborhood": crop}, {"neighborhood": other},
        {"neighborhood": Neighborhood("blur", (0.9,))},
    ]  # fmt: skip
    keys = {evidence_key(probe(**change), "model").hash for change in changes}
    assert len(keys) == len(changes)


def test_sima_asks_for_the_noise_in_the_clean_image():
    (item,) = records(1)
    row = CleanQuestion(TIMESTEPS).ask(gaussian_denoiser(), [item]).to_pylist()[0]
    expected = [np.mean(best_noise(clean_of(item), t) ** 4) for t in TIMESTEPS]
    np.testing.assert_allclose(row["l4"], expected, rtol=1e-4)


@pytest.mark.parametrize("normalized", [False, True])
def test_pia_compares_with_the_noise_seen_at_the_start(normalized):
    (item,) = records(1)
    kind = NormalizedProximalQuestion if normalized else ProximalQuestion
    row = kind(TIMESTEPS).ask(gaussian_denoiser(), [item]).to_pylist()[0]
    initial = best_noise(clean_of(item), 0)
    if normalized:
        initial = initial * np.sqrt(2 / np.pi) / np.abs(initial).mean()
    for place, t in enumerate(TIMESTEPS):
        kept = float(ALPHAS[t])
        noisy = np.sqrt(kept) * clean_of(item) + np.sqrt(1 - kept) * initial
        residual = initial - best_noise(noisy, t)
        assert row["l4"][place] == pytest.approx(np.mean(residual**4), rel=1e-3)


@pytest.mark.parametrize("with_map", [False, True])
def test_secmi_inverts_goes_one_step_up_and_one_back(with_map):
    (item,) = records(1)
    kind = InversionMapQuestion if with_map else InversionQuestion
    row = kind(100, 20).ask(gaussian_denoiser(), [item]).to_pylist()[0]

    def move(x, start, end):
        noise, a, b = best_noise(x, start), float(ALPHAS[start]), float(ALPHAS[end])
        clean = (x - np.sqrt(1 - a) * noise) / np.sqrt(a)
        return np.sqrt(b) * clean + np.sqrt(1 - b) * noise

    x = clean_of(item)
    for t in (0, 20, 40, 60, 80):
        x = move(x, t, t + 20)
    residual = move(move(x, 100, 120), 120, 100) - x
    assert row["l2"][0] == pytest.approx(np.mean(residual**2), rel=1e-3)
    if with_map:
        np.testing.assert_allclose(row["map"], np.abs(residual).ravel(), atol=1e-5)
    else:
        assert row["map"] is None


def test_an_answer_that_is_not_finite_is_an_error_of_its_record_alone():
    items = records(3)

    def network(noisy, *_):
        found = torch.zeros_like(noisy)
        found[noisy.flatten(1).mean(1) > 5] = float("nan")
        return found

    model = Denoiser(
        network, Diffusion(ALPHAS, "epsilon"), shape=SHAPE, latent_shape=SHAPE, batch_images=2
    )
    model.encode = lambda images: images * 2 - 1 + 10 * (images[:, :1, :1, :1] > 0.5)
    marked = [np.frombuffer(i.payload["pixels"], np.uint8)[0] > 127 for i in items]
    rows = CleanQuestion((0,)).ask(model, items).to_pylist()
    assert [row["error"] is not None for row in rows] == marked
    assert 0 < sum(marked) < len(items)


def counting_words(asked, prompt=None):
    """A model whose answer is how many words a caption has; what it is asked with is kept."""

    def network(noisy, _, condition):
        return noisy * condition["words"].reshape(-1, 1, 1, 1)

    def embed(captions):
        asked.append(list(captions))
        return {"words": torch.tensor([float(len(c.split())) for c in captions])}

    return Denoiser(
        network, Diffusion(ALPHAS, "epsilon"), shape=SHAPE, latent_shape=SHAPE, batch_images=16,
        embed=embed, prompt=prompt,
    )  # fmt: skip


def test_a_model_with_one_caption_for_all_is_asked_with_that_and_its_first_words():
    asked: list[list[str]] = []
    model, (record,) = counting_words(asked, "one two"), records(1)
    probe(timesteps=(150,), draws=1).ask(model, [record])
    captions = CaptionQuestion(timesteps=(150,), seed=0, reductions=2)
    captions.ask(model, [Item("r0", n, record.payload) for n in captions.indices()])
    assert asked == [["one two"], ["one two", "one", ""]]


def test_captions_of_others_are_a_function_of_the_record_and_never_its_own():
    asked: list[list[str]] = []
    model, items = counting_words(asked), records(6)
    question = OtherCaptionQuestion((150,), 0, ("a b c d", "x", "y z", "u v w"), others=2)
    about = [Item(i.record_id, n, i.payload) for i in items for n in question.indices()]
    rows = question.ask(model, about).to_pylist()
    (captions,) = asked
    assert "a b c d" not in captions
    pairs = [*zip(captions[::2], captions[1::2], strict=True)]
    assert all(first != second for first, second in pairs)
    assert len({*pairs}) > 1
    question.ask(model, about[4:2:-1])
    assert asked[1] == captions[4:2:-1]
    words = {"x": 1, "y z": 2, "u v w": 3}
    for item, caption, row in zip(about, captions, rows, strict=True):
        kept, noise = float(ALPHAS[150]), noise_of(item, 150, 0)
        noisy = np.sqrt(kept) * clean_of(item) + np.sqrt(1 - kept) * noise
        assert row["l2"][0] == pytest.approx(
            np.mean((noise - words[caption] * noisy) ** 2), rel=1e-4
        )
    alone = OtherCaptionQuestion((150,), 0, ("a b c d",), others=1)
    (row,) = alone.ask(model, [Item("r0", 1, items[0].payload)]).to_pylist()
    assert (row["l2"], row["error"]) == (None, NO_OTHER)


def test_captions_are_reduced_to_none():
    assert [reduced("a b c d", 1 - n / 4) for n in range(5)] == ["a b c d", "a b c", "a b", "a", ""]
    asked: list[list[str]] = []
    model = counting_words(asked)
    (record,) = records(1)
    captions = CaptionQuestion(timesteps=(150,), seed=0, reductions=2)
    items = [Item("r0", n, record.payload) for n in captions.indices()]
    rows = captions.ask(model, items).to_pylist()
    assert asked == [["a b c d", "a b", ""]]
    kept, noise = float(ALPHAS[150]), noise_of(record, 150, 0)
    noisy = np.sqrt(kept) * clean_of(record) + np.sqrt(1 - kept) * noise
    for row, words in zip(rows, (4, 2, 0), strict=True):
        assert row["l2"][0] == pytest.approx(np.mean((noise - words * noisy) ** 2), rel=1e-4)


def test_the_low_pass_keeps_low_frequencies_and_a_fifth_of_the_others():
    size = 32
    grid = np.arange(size) / size
    for frequency, share in ((3, 1.0), (5, 1.0), (6, 0.2), (12, 0.2)):
        wave = np.cos(2 * np.pi * frequency * grid)[None, None, None] * np.ones((1, 1, size, 1))
        found = low_pass(torch.from_numpy(wave)).numpy()
        np.testing.assert_allclose(found, share * wave, atol=1e-6)
    residual = torch.randn(2, *SHAPE)
    named = distances(residual)
    torch.testing.assert_close(named["low_l2"], (low_pass(residual) ** 2).mean((1, 2, 3)))
    torch.testing.assert_close(named["l4"], (residual**4).mean((1, 2, 3)))


def test_the_noise_seen_on_average_is_asked_along_the_path_in_batches_of_any_size():
    """sqrt(abar (1 - abar)) (x - m) / V, as a pair of opposite draws cancels."""
    rows = [
        AveragedQuestion(TIMESTEPS, 2, seed=0).ask(gaussian_denoiser(size), records(3)).to_pylist()
        for size in (1, 16)
    ]
    for item, *both in zip(records(3), *rows, strict=True):
        expected = [
            np.mean(best_noise(np.sqrt(float(ALPHAS[t])) * clean_of(item), t) ** 2)
            for t in TIMESTEPS
        ]
        for row in both:
            np.testing.assert_allclose(row["l2"], expected, rtol=1e-4)
    assert AveragedQuestion(TIMESTEPS, 2, seed=0).passes == 12
