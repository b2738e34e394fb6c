"""Training autoencoders: members end up with the smaller loss, and a kill changes no weight."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from small_autoencoders import (
    OBJECTIVES,
    draws_of,
    small_autoencoder,
    small_config,
    small_kl_autoencoder,
)

from raymia.models.autoencoders.model import Autoencoder
from raymia.models.autoencoders.vae import build_autoencoder, load_vae, read_config
from raymia.models.autoencoders.vae.riemannian import RiemannianAutoencoder
from raymia.prepare.autoencoder_training import Training
from raymia.prepare.train_autoencoder import train_autoencoder, train_like
from raymia.spec.images import AutoencoderTrainingSpec
from raymia.util.draws import generator, normals, stream_key
from raymia.util.errors import InputError, RaymiaError

SHAPE = (3, 16, 16)


def digits(count, start=0):
    """Scikit-learn's digits at twice their size in RGB, each once, in a random order."""
    order = np.random.default_rng(0).permutation(1797)[start : start + count]
    grey = np.minimum(load_digits().images[order] * 16, 255).astype(np.uint8)
    return np.repeat(grey.repeat(2, axis=1).repeat(2, axis=2)[:, None], 3, axis=1)


MEMBERS, OTHERS = digits(64), digits(128, start=64)


def train(out, images=MEMBERS, objective="vae", measure_on=OTHERS, seed=0, **settings):
    spec = AutoencoderTrainingSpec(
        epochs=settings.pop("epochs", 4), batch_size=32, learning_rate=settings.pop("rate", 5e-3)
    )
    kept = {key: settings.pop(key) for key in ("progress", "checkpoint_every") if key in settings}
    config = small_config(objective, **{"image_shape": SHAPE, **settings})
    calls = {"progress": lambda *_: None, **kept}
    return train_autoencoder(images, config, spec, out, seed=seed, measure_on=measure_on, **calls)


def losses(folder, images):
    model = Autoencoder(load_vae(folder), batch_images=64)
    noise = draws_of(len(images), 20, model.noise_size)
    return model.terms(torch.from_numpy(images).float() / 255, noise)["loss"].mean(1).numpy()


def measured(folder, images, seed=0):
    """The mean loss over four draws of each image, a function of the seed and its place."""
    model = Autoencoder(load_vae(folder), batch_images=64)
    keys = torch.tensor([stream_key(seed, "measure", i) for i in range(len(images))])
    noise = normals(keys, 4 * model.noise_size).reshape(len(images), 4, model.noise_size)
    return float(model.terms(torch.from_numpy(images).float() / 255, noise)["loss"].mean())


def weights(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_overfitted_model_tells_members_by_their_loss(objective, tmp_path):
    settings = {"beta": 1.5} if objective == "beta_vae" else {}
    facts = train(
        tmp_path, objective=objective, epochs=150, latent=8, channels=(16, 32),
        rhvae={"n_lf": 1}, **settings,
    )  # fmt: skip
    inside, outside = losses(tmp_path, MEMBERS), losses(tmp_path, OTHERS)
    is_member = [True] * len(inside) + [False] * len(outside)
    assert roc_auc_score(is_member, -np.concatenate([inside, outside])) > 0.95
    assert facts["train_loss"] == pytest.approx(measured(tmp_path, MEMBERS), abs=1e-3)
    assert facts["held_out_loss"] == pytest.approx(measured(tmp_path, OTHERS), abs=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_same_seed_makes_the_same_weights_and_another_seed_others(objective, tmp_path):
    for number, seed in enumerate((0, 0, 1)):
        train(tmp_path / str(number), objective=objective, seed=seed, epochs=2)
    one, again, other = (weights(tmp_path / str(number)) for number in range(3))
    assert one == again
    assert one != other


def test_training_neither_reads_nor_moves_torchs_own_generator(tmp_path):
    torch.manual_seed(1)
    train(tmp_path / "one", epochs=1)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(2)
    train(tmp_path / "other", epochs=1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), expected)
    assert weights(tmp_path / "one") == weights(tmp_path / "other")


def test_facts_are_written_beside_the_model(tmp_path):
    told = []
    facts = train(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert json.loads((tmp_path / "facts.json").read_text()) == facts
    assert (facts["images"], facts["held_out_images"], facts["epoch"], facts["steps"]) == (
        64, 128, 4, 8,
    )  # fmt: skip
    assert told == [(n, 4) for n in range(5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "config.json", "facts.json", "model.safetensors",
    ]  # fmt: skip


def test_without_held_out_images_some_are_set_apart(tmp_path):
    facts = train(tmp_path, measure_on=None)
    assert (facts["images"], facts["held_out_images"]) == (61, 3)


@pytest.mark.parametrize("objective", ["vae", "rhvae"])
def test_training_that_was_killed_goes_on_to_the_same_weights(objective, tmp_path):
    class KilledError(Exception):
        """Stands for the end of the process between two epochs."""

    def kill(done, total):
        del total
        if done == 7:
            raise KilledError

    settings = {"objective": objective, "epochs": 9, "checkpoint_every": 3}
    train(tmp_path / "whole", **settings)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", progress=kill, **settings)
    resumed = []
    train(tmp_path / "killed", progress=lambda done, _: resumed.append(done), **settings)
    assert resumed == [6, 7, 8, 9]
    for name in ("checkpoint-3", "checkpoint-6", "checkpoint-9"):
        assert weights(tmp_path / "killed" / name) == weights(tmp_path / "whole" / name)
    assert not (tmp_path / "killed" / "training.safetensors").exists()


def test_checkpoints_are_saved_along_training_and_after_the_last_epoch(tmp_path):
    facts = train(tmp_path, epochs=5, checkpoint_every=2)
    assert [c["folder"] for c in facts["checkpoints"]] == [f"checkpoint-{n}" for n in (2, 4, 5)]
    assert not (tmp_path / "config.json").exists(), "the folder around them is no model"
    for checkpoint in facts["checkpoints"]:
        found = measured(tmp_path / checkpoint["folder"], MEMBERS)
        assert checkpoint["train_loss"] == pytest.approx(found, abs=1e-3)


def test_finished_training_is_not_taken_again(tmp_path):
    facts = train(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert train(tmp_path) == facts
    assert {p: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_folder_of_another_training_is_refused(tmp_path):
    train(tmp_path)
    for change in ({"seed": 1}, {"epochs": 5}, {"images": OTHERS}, {"latent": 6}):
        with pytest.raises(InputError, match="of a training with other images, settings, seed"):
            train(tmp_path, **change)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_finishing_a_network_looks_at_no_images_but_those_that_it_keeps_something_of(
    objective, monkeypatch
):
    monkeypatch.setattr(RiemannianAutoencoder, "kept_images", 10)
    network = build_autoencoder(small_config(objective, image_shape=SHAPE))
    training = Training(MEMBERS, network, AutoencoderTrainingSpec(), 3)
    looked, tensor = [], training._tensor

    def watched(images):
        looked.append(len(images))
        return tensor(images)

    monkeypatch.setattr(training, "_tensor", watched)
    training.finish()
    assert not network.training
    assert looked == ([10] if objective == "rhvae" else [])
    if objective == "rhvae":
        rows = generator(3, "kept").permutation(len(MEMBERS))[:10]
        mean, _ = network.posterior(tensor(MEMBERS[rows]))
        torch.testing.assert_close(network.centroids, mean)


def test_no_batch_is_of_a_single_image(tmp_path):
    """33 images at up to 32 a batch would leave one alone, which has no statistics."""
    assert train(tmp_path, MEMBERS[:33])["steps"] == 8
    assert np.isfinite(losses(tmp_path, MEMBERS[:2])).all()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (MEMBERS[:, :1], r"expected uint8 \[count, 3, 16, 16\].*uint8 \[64, 1, 16, 16\]"),
        (MEMBERS / 255, "but got float64"),
        (MEMBERS[:1], "expected at least 2, but got 1"),
    ],
)
def test_images_that_do_not_fit_are_refused(tmp_path, images, message):
    with pytest.raises(InputError, match=message):
        train(tmp_path / "out", images)
    with pytest.raises(InputError, match="held-out images"):
        train(tmp_path / "out", measure_on=images[:0] if len(images) == 1 else images)
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_stops_with_the_step_and_what_to_try(tmp_path):
    with pytest.raises(RaymiaError, match=r"step \d+: .*its loss is nan; .*smaller learning_rate"):
        train(tmp_path, rate=1e6, epochs=50, normalization="none")


# -------------------------------------------------------------------- models like another


def like(folder, out, images=MEMBERS, seed=0, epochs=2):
    spec = AutoencoderTrainingSpec(epochs=epochs, batch_size=32, learning_rate=5e-3)
    return train_like(folder, images, spec, out, seed=seed, progress=lambda *_: None)


def test_model_like_another_has_its_config_and_none_of_its_weights(tmp_path):
    small_autoencoder("wae_mmd", image_shape=SHAPE).save(tmp_path / "one")
    like(tmp_path / "one", tmp_path / "other")
    assert read_config(tmp_path / "other") == read_config(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").write_bytes(b"not read")
    like(tmp_path / "one", tmp_path / "again")
    assert weights(tmp_path / "other") == weights(tmp_path / "again")


def test_model_like_an_autoencoder_kl_learns_its_images(tmp_path):
    small_kl_autoencoder().save(tmp_path / "one")
    images = np.ascontiguousarray(MEMBERS[:, :, ::2, ::2])
    first, later = (
        like(tmp_path / "one", tmp_path / str(epochs), images, epochs=epochs) for epochs in (1, 8)
    )
    assert later["train_loss"] < first["train_loss"]
    stored = load_file(tmp_path / "8" / "diffusion_pytorch_model.safetensors")
    assert all(t.dtype == torch.float32 for t in stored.values())
