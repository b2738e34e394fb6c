"""Training a diffusion model: what it learns, what it saves, and that a kill changes nothing."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import safetensors.torch
import scipy.stats
import torch
from small_families import save_family
from small_image_models import save_pipeline

from raymia.models.denoisers.as_trained import as_trained
from raymia.models.denoisers.model import load_denoiser
from raymia.models.image_source import resolve_image_model
from raymia.prepare import train_denoiser as module
from raymia.prepare.denoiser_files import fresh_pipeline, load_trainable
from raymia.prepare.denoiser_training import Training, learning_rate
from raymia.prepare.train_denoiser import train_denoiser
from raymia.prepare.training_state import STATE_FILE
from raymia.spec import ModelSpec
from raymia.spec.images import DiffusionTrainingSpec
from raymia.util.draws import generator, normals, stream_key, uniforms
from raymia.util.errors import InputError

SHAPE = (1, 8, 8)


def pictures(count, shape=SHAPE, seed=0):
    """Bright disks in dark corners, the same few over and over with a little noise."""
    draws = generator(seed, "pictures")
    channels, height, width = shape
    y, x = np.mgrid[:height, :width]
    corner = draws.integers(0, 2, (count, 2)) * np.array([height - 4, width - 4]) + 1.5
    distance = np.hypot(y[None] - corner[:, :1, None], x[None] - corner[:, 1:, None])
    disks = np.where(distance < 2.5, 230, 20)[:, None] + draws.integers(-10, 10, (count, *shape))
    return np.broadcast_to(disks, (count, channels, height, width)).astype(np.uint8)


def settings(**changes):
    quick = {"steps": 12, "batch_size": 8, "learning_rate": 2e-3, "warmup": 2}
    return DiffusionTrainingSpec(**{**quick, **changes})


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "fresh"
    fresh_pipeline(folder, SHAPE, channels=(8, 16), attention=False)
    return folder


def train(pipeline, out, images=None, *, progress=None, seed=0, measure_on=None, **options):
    changes = {k: options.pop(k) for k in list(options) if k in DiffusionTrainingSpec.model_fields}
    return train_denoiser(
        pictures(20) if images is None else images,
        pipeline,
        settings(**changes),
        out,
        seed=seed,
        progress=progress or (lambda *_: None),
        measure_on=pictures(6, seed=1) if measure_on is None else measure_on,
        **options,
    )


def weights(folder, network="unet"):
    return safetensors.torch.load_file(folder / network / "diffusion_pytorch_model.safetensors")


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


# ----------------------------------------------------------------------- fresh pipelines


@pytest.mark.parametrize("scheduler", ["ddpm", "ddim", "pndm"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_fresh_pipeline_is_one_that_diffusers_and_the_audit_load(tmp_path, scheduler, prediction):
    import diffusers

    fresh_pipeline(
        tmp_path, (3, 8, 12), channels=(8, 16), scheduler=scheduler, prediction_type=prediction,
        train_timesteps=200,
    )  # fmt: skip
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded).__name__ == f"{scheduler.upper()}Pipeline"
    assert type(loaded.scheduler).__name__ == f"{scheduler.upper()}Scheduler"
    assert loaded.scheduler.config.prediction_type == prediction
    checkpoint = resolve_image_model(ModelSpec(model=str(tmp_path)), "m", on_gpu=False)
    assert checkpoint.shape == (3, 8, 12)
    assert checkpoint.train_timesteps == 200


def test_fresh_networks_are_functions_of_the_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(99 + len(name))
        fresh_pipeline(tmp_path / name, SHAPE, channels=(8, 16), seed=seed)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (8, 8, 8, 8, 8)}, r"8 x 8 pixels cannot be halved 4 times"),
        ({"channels": (8, 12)}, "multiple of 8 for attention, but got 12"),
        ({"channels": ()}, "channels should be one positive number or more"),
        ({"scheduler": "euler"}, "scheduler should be one of ddpm, ddim, pndm, but got 'euler'"),
        ({"prediction_type": "x"}, "prediction_type should be one of .* but got 'x'"),
        ({"prediction_type": "flow", "scheduler": "pndm"}, "pndm goes the path of a DDPM"),
    ],
)
def test_network_that_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        fresh_pipeline(tmp_path, SHAPE, **options)


# ------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_loss_falls_whatever_is_predicted_and_the_pipeline_can_be_loaded(tmp_path, prediction):
    import diffusers

    fresh_pipeline(
        tmp_path / "p", SHAPE, channels=(8, 16), prediction_type=prediction, attention=False
    )
    facts = train(tmp_path / "p", tmp_path / "out", steps=80, batch_size=16, warmup=5,
                  checkpoint_every=40)  # fmt: skip
    start = Training(pictures(20), load_trainable(tmp_path / "p", from_weights=False, seed=0),
                     settings(), 0)  # fmt: skip
    first = start.loss_on(pictures(20))
    later = [checkpoint["train_loss"] for checkpoint in facts["checkpoints"]]
    assert later[1] < later[0] < first
    assert later[1] < 0.7 * first
    assert facts["prediction_type"] == prediction
    saved = tmp_path / "out" / "checkpoint-80"
    assert isinstance(diffusers.DiffusionPipeline.from_pretrained(saved), diffusers.DDPMPipeline)
    before, after = (json.loads((p / "scheduler" / "scheduler_config.json").read_text())
                     for p in (tmp_path / "p", saved))  # fmt: skip
    assert before == after


def test_loss_is_the_error_of_what_the_audit_asks(tmp_path, untrained):
    """Of a network that predicts noise, found by the adapter's own prediction."""
    images = pictures(5)
    train(untrained, tmp_path, seed=3)
    model = load_denoiser(
        resolve_image_model(ModelSpec(model=str(tmp_path)), "m", on_gpu=False), batch_images=8
    )
    clean = torch.from_numpy(images).float() / 255 * 2 - 1
    errors = []
    for i in range(5):
        for quarter in range(4):
            key = torch.tensor([stream_key(3, "measure", i, quarter)])
            t = int((quarter + float(uniforms(key, 1, 1))) / 4 * 1000)
            kept = float(model.path.alphas_cumprod[t])
            noise = normals(key, 64).reshape(1, *SHAPE)
            noisy = math.sqrt(kept) * clean[i : i + 1] + math.sqrt(1 - kept) * noise
            predicted = model.predict_noise(noisy, torch.tensor([t]))
            errors.append(float((predicted - noise).square().mean()))
    trained = Training(images, load_trainable(tmp_path, from_weights=True, seed=0), settings(), 3)
    assert trained.loss_on(images) == pytest.approx(np.mean(errors), rel=1e-4)


def test_loss_of_a_flow_is_that_of_the_velocity_that_the_audit_asks(tmp_path):
    images = pictures(3)
    fresh_pipeline(tmp_path, SHAPE, channels=(8, 16), attention=False, prediction_type="flow")
    model = load_denoiser(
        resolve_image_model(ModelSpec(model=str(tmp_path)), "m", on_gpu=False), batch_images=8
    )
    clean = torch.from_numpy(images).float() / 255 * 2 - 1
    errors = []
    for i in range(3):
        for quarter in range(4):
            key = torch.tensor([stream_key(3, "measure", i, quarter)])
            s = int((quarter + float(uniforms(key, 1, 1))) / 4 * 1000) / 1000
            noise = normals(key, 64).reshape(1, *SHAPE)
            noisy = (1 - s) * clean[i : i + 1] + s * noise
            seen = model.predict_noise(noisy, torch.tensor([s * 1000]))
            errors.append(float(((noise - seen) / (1 - s)).square().mean()))
    trained = Training(images, load_trainable(tmp_path, from_weights=True, seed=0), settings(), 3)
    assert trained.loss_on(images) == pytest.approx(np.mean(errors), rel=1e-3)


def test_one_step_is_adamw_on_the_gradient_of_the_squared_error(untrained):
    """The first step of AdamW moves each weight by the rate, against its gradient's sign."""
    images = pictures(8)
    training = Training(images, load_trainable(untrained, from_weights=True, seed=0),
                        settings(warmup=0, learning_rate=1e-3), 0)  # fmt: skip
    network = training.model.network
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    training.advance()
    for name, value in network.named_parameters():
        moved = (before[name] - value).abs()
        assert moved.max() <= 1e-3 * (1 + 1e-2)
        gradient = value.grad.abs()
        if gradient.max() > 1e-6:
            assert moved[gradient > 1e-6].min() > 0.9e-3
    norm = torch.stack([p.grad.norm() for p in network.parameters()]).norm()
    assert norm <= 1.0 + 1e-5


def test_rate_rises_linearly_and_falls_along_a_cosine():
    given = settings(steps=110, warmup=10, learning_rate=1.0)
    rates = [learning_rate(given, step) for step in range(110)]
    assert rates[:10] == pytest.approx(np.linspace(0.1, 1, 10))
    assert rates[10] == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[109] == pytest.approx(0, abs=3e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_timesteps_are_drawn_evenly_or_as_the_logistic_function_of_normal_numbers(untrained):
    drawn = {}
    for how in ("uniform", "logit_normal"):
        training = Training(pictures(20), load_trainable(untrained, from_weights=True, seed=0),
                            settings(timesteps=how), 0)  # fmt: skip
        clean = torch.zeros(20_000, *SHAPE)
        _, _, timesteps = training._drawn(clean, torch.Generator().manual_seed(0))
        drawn[how] = (timesteps.numpy() + 0.5) / training.model.denoiser.path.timesteps
    assert scipy.stats.kstest(drawn["uniform"], "uniform").statistic < 0.015
    normal = np.log(drawn["logit_normal"] / (1 - drawn["logit_normal"]))
    assert scipy.stats.kstest(normal, "norm").statistic < 0.015


def test_trainings_from_before_timesteps_could_be_chosen_keep_their_key():
    assert "timesteps" not in settings().model_dump()
    chosen = settings(timesteps="logit_normal")
    assert chosen.model_dump()["timesteps"] == "logit_normal"
    assert DiffusionTrainingSpec(**chosen.model_dump()) == chosen


def test_every_image_is_seen_equally_often_in_an_order_of_its_own_each_epoch(untrained):
    training = Training(pictures(20), load_trainable(untrained, from_weights=True, seed=0),
                        settings(), 0)  # fmt: skip
    rows = [training._row(place) for place in range(60)]
    epochs = [rows[20 * e : 20 * e + 20] for e in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_running_mean_is_what_diffusers_keeps(tmp_path, untrained):
    from diffusers.training_utils import EMAModel

    training = Training(pictures(20), load_trainable(untrained, from_weights=True, seed=0),
                        settings(ema=0.6), 0)  # fmt: skip
    theirs = EMAModel(training.model.network.parameters(), decay=0.6)
    for _ in range(12):
        training.advance()
        theirs.step(training.model.network.parameters())
    for ours, expected in zip(training.mean.values(), theirs.shadow_params, strict=True):
        assert torch.allclose(ours, expected, atol=1e-6)

    train(untrained, tmp_path, from_weights=True, ema=0.6)
    parameters = {n: p.detach() for n, p in training.model.network.named_parameters()}
    assert all(
        torch.allclose(weights(tmp_path)[n], training.mean[n], atol=1e-6) for n in parameters
    )
    assert not same(weights(tmp_path), parameters)


def test_augmented_images_are_mirrored_halves_and_parts(untrained):
    images = pictures(8)

    def batch(**changes):
        model = load_trainable(untrained, from_weights=True, seed=0)
        training = Training(images, model, settings(**changes), 0)
        return training._batch(training._rows(), torch.Generator().manual_seed(0)), training

    plain, training = batch()
    order = [training._row(n) for n in range(8)]
    assert torch.equal(plain, torch.from_numpy(images[order]).float() / 255 * 2 - 1)
    flipped, _ = batch(flip=True)
    is_same = [torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    is_mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True)]
    assert all(a or b for a, b in zip(is_same, is_mirrored, strict=True))
    assert 0 < sum(is_same) < 8
    cropped, _ = batch(crop=True)
    assert not any(torch.equal(a, b) for a, b in zip(plain, cropped, strict=True))
    assert (cropped - plain).abs().mean() < 0.5 * plain.std()
    assert cropped.min() >= plain.min()
    assert cropped.max() <= plain.max()


# ------------------------------------------------------------------------- determinism


def test_same_seed_trains_the_same_weights_and_another_seed_others(tmp_path, untrained):
    images = pictures(20)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(17 * seed)
        train(untrained, tmp_path / name, images, seed=seed)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_training_leaves_the_callers_randomness_alone(tmp_path, untrained):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(untrained, tmp_path)
    assert torch.equal(torch.rand(3), expected)


class Killed(BaseException):
    """As a signal that nothing handles."""


def kill_at(last):
    def progress(step, _):
        if step == last:
            raise Killed

    return progress


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"flip": True, "crop": True}])
def test_killed_training_goes_on_and_ends_as_an_undisturbed_one(
    tmp_path, untrained, monkeypatch, options
):
    monkeypatch.setattr(module, "STATE_EVERY", 4)
    train(untrained, tmp_path / "whole", **options)
    with pytest.raises(Killed):
        train(untrained, tmp_path / "killed", progress=kill_at(7), **options)
    assert not (tmp_path / "killed" / "model_index.json").exists()
    seen = []
    facts = train(untrained, tmp_path / "killed", progress=lambda *s: seen.append(s), **options)
    assert seen == [(step, 12) for step in range(4, 13)]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert not (tmp_path / "killed" / STATE_FILE).exists()
    whole = json.loads((tmp_path / "whole" / "facts.json").read_text())
    assert {**whole, "seconds": 0} == {**facts, "seconds": 0}


@pytest.mark.parametrize("last", [4, 5, 8, 11])
def test_killed_training_has_the_checkpoints_of_an_undisturbed_one(tmp_path, untrained, last):
    whole = train(untrained, tmp_path / "whole", checkpoint_every=5)
    with pytest.raises(Killed):
        train(untrained, tmp_path / "killed", progress=kill_at(last), checkpoint_every=5)
    facts = train(untrained, tmp_path / "killed", checkpoint_every=5)
    assert [c["step"] for c in facts["checkpoints"]] == [5, 10, 12]
    assert facts["checkpoints"] == whole["checkpoints"]
    for step in (5, 10, 12):
        folder = f"checkpoint-{step}"
        assert same(weights(tmp_path / "whole" / folder), weights(tmp_path / "killed" / folder))
    assert not (tmp_path / "whole" / "model_index.json").exists()


def test_killed_while_saving_leaves_nothing_to_be_taken_for_a_pipeline(
    tmp_path, untrained, monkeypatch
):
    from raymia.prepare import denoiser_files

    def killed(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(denoiser_files.shutil, "copy2", killed)
        with pytest.raises(Killed):
            train(untrained, tmp_path / "out")
    assert not (tmp_path / "out" / "model_index.json").exists()
    train(untrained, tmp_path / "out")
    train(untrained, tmp_path / "whole")
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_finished_training_is_not_taken_again(tmp_path, untrained, monkeypatch):
    facts = train(untrained, tmp_path)
    monkeypatch.setattr(module, "load_trainable", None)
    seen = []
    assert train(untrained, tmp_path, progress=lambda *s: seen.append(s)) == facts
    assert seen == [(12, 12)]


def test_folder_of_another_training_is_refused(tmp_path, untrained, monkeypatch):
    monkeypatch.setattr(module, "STATE_EVERY", 4)
    train(untrained, tmp_path / "done")
    with pytest.raises(InputError, match="is of a training with other images, settings, seed"):
        train(untrained, tmp_path / "done", seed=1)
    with pytest.raises(Killed):
        train(untrained, tmp_path / "half", progress=kill_at(6))
    with pytest.raises(InputError, match=r"training\.safetensors is of a training with other"):
        train(untrained, tmp_path / "half", learning_rate=1e-5)
    (tmp_path / "half" / STATE_FILE).write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"cannot be read.*remove it to start anew"):
        train(untrained, tmp_path / "half")


# ---------------------------------------------------------------- what it starts from


def test_weights_are_trained_further_or_made_anew(tmp_path, untrained):
    rate = 1e-9
    train(untrained, tmp_path / "further", from_weights=True, learning_rate=rate)
    train(untrained, tmp_path / "anew", learning_rate=rate, seed=1)
    start, further, anew = (weights(p) for p in
                            (untrained, tmp_path / "further", tmp_path / "anew"))  # fmt: skip
    assert all(torch.allclose(start[n], further[n], atol=1e-6) for n in start)
    assert not all(torch.allclose(start[n], anew[n], atol=1e-2) for n in start)


@pytest.mark.parametrize("kind", ["ldm", "dit", "stable"])
def test_latent_pipelines_are_trained_on_latents_and_the_rest_is_copied(tmp_path, kind):
    save_pipeline(kind, tmp_path / "p")
    shape = (3, 16, 16)
    facts = train(
        tmp_path / "p", tmp_path / "out", pictures(10, shape), measure_on=pictures(4, shape),
        steps=3, warmup=1, batch_size=4,
    )  # fmt: skip
    assert math.isfinite(facts["train_loss"])
    network = "transformer" if kind == "dit" else "unet"
    changed = [
        str(file.relative_to(tmp_path / "p"))
        for file in (tmp_path / "p").rglob("*.safetensors")
        if file.read_bytes() != (tmp_path / "out" / file.relative_to(tmp_path / "p")).read_bytes()
    ]
    assert changed == [f"{network}/diffusion_pytorch_model.safetensors"]
    model = load_denoiser(
        resolve_image_model(ModelSpec(model=str(tmp_path / "out")), "m", on_gpu=False),
        batch_images=4,
    )
    noisy = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(model.predict_noise(noisy, torch.tensor([10, 900]))).all()


@pytest.mark.parametrize("kind", ["sdxl", "pixart"])
def test_a_network_is_told_the_size_that_it_is_trained_at(tmp_path, kind):
    """As an audit tells it, which asks at that size; both networks predict noise."""
    save_family(kind, tmp_path)
    checkpoint = resolve_image_model(ModelSpec(model=str(tmp_path)), "m", on_gpu=False)
    asked = load_denoiser(as_trained(checkpoint, None, (32, 24)), batch_images=2)
    plain, trained = (
        load_trainable(tmp_path, from_weights=True, seed=0, size=size) for size in (None, (32, 24))
    )
    noisy = torch.randn(2, *asked.latent_shape, generator=torch.Generator().manual_seed(0))
    given = noisy, torch.tensor([100, 700]), ["a cat", "a dog"]
    expected = asked.predict_noise(*given)
    with torch.no_grad():
        found, otherwise = (model(*given) for model in (trained, plain))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(otherwise, expected, atol=1e-5, rtol=1e-4)


def test_held_out_images_are_set_aside_where_none_are_given(tmp_path, untrained):
    facts = train_denoiser(
        pictures(40), untrained, settings(), tmp_path, seed=0, progress=lambda *_: None
    )
    assert (facts["images"], facts["held_out_images"]) == (38, 2)


# -------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("images", "changes", "message"),
    [
        (
            pictures(4, (1, 8, 12)),
            {},
            r"images: expected uint8 \[count, 1, 8, 8\].*\[4, 1, 8, 12\]",
        ),
        (pictures(4) / 255, {}, r"expected uint8 .*but got float64 \[4, 1, 8, 8\]"),
        (pictures(0), {}, "expected at least 1, but got 0"),
        (pictures(4), {"warmup": 12}, "warm-up of 12 steps should be shorter .* of 12"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tmp_path, untrained, images, changes, message):
    with pytest.raises(InputError, match=message):
        train(untrained, tmp_path, images, **changes)


def test_training_that_diverges_says_so_and_saves_nothing(tmp_path, untrained):
    with pytest.raises(InputError, match=r"step \d+: .*has diverged.*smaller learning_rate"):
        train(untrained, tmp_path, learning_rate=1e30)
    assert not (tmp_path / "model_index.json").exists()


def test_pipeline_without_a_schedule_is_refused(tmp_path, untrained):
    shutil.copytree(untrained, tmp_path / "p")
    shutil.rmtree(tmp_path / "p" / "scheduler")
    with pytest.raises(InputError, match="scheduler"):
        train(tmp_path / "p", tmp_path / "out")
