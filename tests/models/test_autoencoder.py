"""Autoencoders: each image is answered as if it were alone, and encoded once."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from small_autoencoders import (
    OBJECTIVES,
    draws_of,
    pictures,
    small_autoencoder,
    small_config,
    small_kl_autoencoder,
)

from raymia.models.autoencoders.model import Autoencoder, load_autoencoder
from raymia.models.autoencoders.vae import build_autoencoder, load_vae
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.util.errors import InputError, RaymiaError

KINDS = (*OBJECTIVES, "kl")


def network_of(kind, **settings):
    return small_kl_autoencoder() if kind == "kl" else small_autoencoder(kind, **settings)


def asked(network, images, noise, batch_images=4):
    return Autoencoder(network, batch_images=batch_images).terms(images, noise)


@pytest.fixture(scope="module", params=KINDS)
def network(request):
    return network_of(request.param)


@pytest.fixture(scope="module")
def images(network):
    return pictures(11, network.image_shape)


@pytest.fixture(scope="module")
def noise(network):
    return draws_of(11, 3, network.noise_size)


@pytest.fixture(scope="module")
def together(network, images, noise):
    return asked(network, images, noise)


def load(folder, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return load_autoencoder(resolve_image_model(spec, "target", on_gpu=False), batch_images=8)


def same(found, expected, rtol=1e-5):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=rtol, atol=1e-5)


# ---------------------------------------------------------------- as if it were alone


def test_image_alone_is_answered_as_beside_others(network, images, noise, together):
    for i in range(len(images)):
        alone = asked(network, images[i : i + 1], noise[i : i + 1])
        same(alone, {name: values[i : i + 1] for name, values in together.items()})


def test_other_batch_mates_change_nothing(network, images, noise, together):
    mates = torch.ones_like(images[:5])  # far from what batch statistics were
    found = asked(network, torch.cat([mates, images]), torch.cat([noise[:5], noise]))
    same({name: values[5:] for name, values in found.items()}, together)


@pytest.mark.parametrize("batch_images", [1, 2, 7, 1000])
def test_batch_size_changes_nothing(network, images, noise, together, batch_images):
    same(asked(network, images, noise, batch_images), together)


def test_order_changes_nothing(network, images, noise, together):
    found = asked(network, images.flip(0), noise.flip(0))
    same({name: values.flip(0) for name, values in found.items()}, together)


def test_draws_do_not_see_each_other(network, images, noise, together):
    found = asked(network, images, noise[:, 1:2])
    same(found, {name: values[:, 1:2] for name, values in together.items()})


def test_scoring_leaves_the_model_as_it_was(network, images, noise):
    before = {name: t.clone() for name, t in network.state_dict().items()}
    asked(network, images, noise)
    after = network.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_mode_is_refused(objective):
    network = small_autoencoder(objective)
    images = pictures(2, network.image_shape)
    network.decoder.stages[0].train()  # one layer is enough to let batch mates in
    model = Autoencoder(network, batch_images=4)
    for ask in (
        lambda: model.terms(images, draws_of(2, 1, model.noise_size)),
        lambda: model.encode(images),
        lambda: model.decode(torch.zeros(2, 5)),
        lambda: model.generate(torch.zeros(2, 5)),
    ):
        with pytest.raises(RaymiaError, match="eval mode"):
            ask()


def test_batch_that_does_not_fit_is_halved(monkeypatch):
    network = small_autoencoder("vae")
    images, noise = pictures(9, network.image_shape), draws_of(9, 2, network.noise_size)
    expected = asked(network, images, noise)
    posterior = network.posterior

    def scarce(batch):
        if len(batch) > 3:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return posterior(batch)

    monkeypatch.setattr(network, "posterior", scarce)
    model = Autoencoder(network, batch_images=8)
    same(model.terms(images, noise), expected)


# ------------------------------------------------------------------------ what is answered


def test_loss_is_the_sum_of_its_parts(together):
    for values in together.values():
        assert values.shape == (11, 3)
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
    parts = together["reconstruction"] + together["divergence"]
    torch.testing.assert_close(together["loss"], parts)
    assert (together["reconstruction"] > 0).all()


def test_images_are_encoded_once_and_decoded_once_per_draw(network, images, noise):
    encoded, decoded = [], []
    parts = network.vae if hasattr(network, "vae") else network
    hooks = [
        parts.encoder.register_forward_hook(lambda _, given, __: encoded.append(len(given[0]))),
        parts.decoder.register_forward_hook(lambda _, given, __: decoded.append(len(given[0]))),
    ]
    asked(network, images, noise)
    for hook in hooks:
        hook.remove()
    assert sum(encoded) == 11
    config = getattr(network, "config", None)
    if config is None or config.objective in ("vae", "beta_vae"):
        assert sum(decoded) == 11 * 3
    elif config.objective == "wae_mmd":
        assert sum(decoded) == 11  # every draw of a deterministic encoder is the same
    else:
        assert sum(decoded) == 11 * 3 * (1 + config.rhvae.n_lf)  # once at every step of the flow


def test_draws_differ_where_the_encoder_draws(network, together):
    is_deterministic = network.noise_size == 0
    spread = together["reconstruction"].std(dim=1)
    assert ((spread == 0) == is_deterministic).all()


def test_answers_are_had_under_any_mode_of_autograd(network, images, noise, together):
    with torch.inference_mode():
        same(asked(network, images.clone(), noise.clone()), together, rtol=1e-6)
    with torch.no_grad():
        same(asked(network, images, noise), together, rtol=1e-6)
    assert not any(values.requires_grad for values in together.values())


def test_latents_decode_to_images_and_noise_generates_them(network, images):
    model = Autoencoder(network, batch_images=4)
    latents = model.encode(images)
    assert latents.shape == (11, *model.latent_shape)
    for made in (model.decode(latents), model.generate(torch.randn(11, latents[0].numel()))):
        assert made.shape == images.shape
        assert made.min() >= 0
        assert made.max() <= 1
    same({"images": model.generate(latents)}, {"images": model.decode(latents)})


@pytest.mark.parametrize("shape", [(2, 3, 10, 12), (2, 1, 10, 14), (0, 3, 10, 14), (3, 10, 14)])
def test_other_images_are_refused(shape):
    model = Autoencoder(small_autoencoder(), batch_images=4)
    with pytest.raises(RaymiaError, match=r"of shape \[3, 10, 14\]"):
        model.terms(torch.zeros(shape), torch.zeros(2, 1, 5))


def test_other_noise_is_refused():
    model = Autoencoder(small_autoencoder(), batch_images=4)
    with pytest.raises(RaymiaError, match=r"\[2, draws, 5\], but got \[2, 1, 4\]"):
        model.terms(pictures(2, model.shape), torch.zeros(2, 1, 4))


# ---------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_answers_as_before(kind, tmp_path):
    network = network_of(kind)
    network.save(tmp_path)
    images, noise = pictures(3, network.image_shape), draws_of(3, 2, network.noise_size)
    model = load(tmp_path)
    assert model.shape == network.image_shape
    expected = asked(network, images, noise, batch_images=8)
    for name, values in model.terms(images, noise).items():
        assert torch.equal(values.cpu(), expected[name])
    assert not [p for p in tmp_path.rglob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_halved_precision_answers_in_float32_and_nearly_the_same(objective, tmp_path):
    network = small_autoencoder(objective)
    network.save(tmp_path)
    images, noise = pictures(3, network.image_shape), draws_of(3, 2, network.noise_size)
    found = load(tmp_path, dtype="bfloat16").terms(images, noise)["loss"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, asked(network, images, noise)["loss"], rtol=0.02, atol=0)


@pytest.mark.parametrize("normalization", ["batch", "group", "none"])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 64, 64), (1, 28, 28), (3, 17, 23), (1, 8, 8)])
def test_decoder_mirrors_the_encoder_at_any_size(shape, normalization):
    network = small_autoencoder(image_shape=shape, channels=(4, 6, 8), normalization=normalization)
    model = Autoencoder(network, batch_images=4)
    terms = model.terms(pictures(2, shape), draws_of(2, 1, 5))
    assert torch.isfinite(terms["loss"]).all()
    kinds = {type(module).__name__ for module in network.modules()}
    assert ("BatchNorm2d" in kinds) == (normalization == "batch")
    assert ("GroupNorm" in kinds) == (normalization == "group")


@pytest.fixture
def saved(tmp_path):
    small_autoencoder().save(tmp_path / "vae")
    return tmp_path / "vae"


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "vq_vae"}, r"config\.json: objective: .*'wae_mmd'"),
        ({"objective": "wae_mmd"}, r"does not fit the config\.json beside it"),
        ({"objective": "rhvae"}, r"does not fit the config\.json.*metric_network"),
        ({"image_shape": [3, 20, 28]}, r"does not fit the config\.json beside it"),
        ({"image_shape": [3, 2, 2]}, r"2 stages halve an image of 2 x 2 pixels to nothing"),
        ({"latent": 6}, "does not fit"),
        ({"channels": []}, r"config\.json: channels"),
        ({"beta": 2.0}, "beta is of beta_vae, and the objective is vae"),
        ({"colour": "blue"}, r"config\.json: colour"),
        ({"_class_name": "VAE"}, "_class_name should be 'raymia.autoencoder', but got 'VAE'"),
    ],
)
def test_config_that_does_not_fit_is_refused(saved, values, message):
    change(saved, **values)
    with pytest.raises(InputError, match=f"(?s){message}"):
        load_vae(saved)


def test_missing_or_damaged_weights_are_refused(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(InputError, match="no readable safetensors file"):
        load_vae(saved)
    weights.unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_vae(saved)
    shutil.rmtree(saved)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_vae(saved)


def test_rhvae_without_its_metric_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    small_autoencoder("rhvae").save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["centroids"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r'(?s)does not fit.*"centroids"'):
        load_vae(tmp_path)


def test_folder_that_is_no_autoencoder_kl_is_refused(tmp_path):
    small_kl_autoencoder().save(tmp_path)
    change(tmp_path, latent_channels=3)
    with pytest.raises(InputError, match="7 of its tensors have other shapes than its config"):
        load(tmp_path)


def test_new_autoencoders_are_in_training_mode_and_loaded_ones_are_not(saved):
    assert all(m.training for m in build_autoencoder(small_config()).modules())
    loaded = load_vae(saved)
    assert not any(m.training for m in loaded.modules())
    assert not any(p.requires_grad for p in loaded.parameters())


# ------------------------------------------------------------------------------- descent


@pytest.mark.long
def test_search_among_latents_of_a_linear_decoder_ends_at_the_least_squares_error(monkeypatch):
    network = small_autoencoder("vae")
    images = pictures(2, network.image_shape)
    torch.manual_seed(1)
    columns = torch.randn(images[0].numel(), 5)
    monkeypatch.setattr(
        network, "decode", lambda z: (z @ columns.T).reshape(-1, *network.image_shape)
    )
    model = Autoencoder(network, batch_images=4)
    for image in images:
        least = torch.linalg.lstsq(columns, image.flatten()[:, None]).solution
        expected = (columns @ least - image.flatten()[:, None]).square().sum()
        found = model.best_error(image[None], steps=2_000, rate=0.02)
        assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_search_is_never_worse_than_the_encoder_and_better_with_more_steps(network):
    model = Autoencoder(network, batch_images=4)
    for image in pictures(3, network.image_shape):
        start = (image - model.decode(model.encode(image[None]))).square().sum()
        errors = [float(model.best_error(image[None], n, 0.05)) for n in (0, 10, 30)]
        assert errors[0] == pytest.approx(float(start), rel=1e-5)
        assert errors[0] > errors[1] > errors[2] > 0
        assert float(model.best_error(image[None], 30, 0.05)) == errors[2]
    assert all(p.grad is None for p in network.parameters())


def test_autoencoder_kl_that_lacks_a_layer_is_refused(tmp_path):
    small_kl_autoencoder().save(tmp_path)
    layers = json.loads((tmp_path / "config.json").read_text())["layers_per_block"]
    change(tmp_path, layers_per_block=layers + 1)
    with pytest.raises(InputError, match=r"its weights lack \d+ of the tensors"):
        load(tmp_path)
