"""Configs of image models are read or refused with the file and the key, whatever is in them."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_image_models import save_model

from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

WHERE = "targets[0].model"
KINDS = ("stable", "ldm", "dit", "imagegpt", "autoencoder_kl")
FILES = (
    "config.json", "preprocessor_config.json", "model_index.json", "unet/config.json",
    "transformer/config.json", "vae/config.json", "vqvae/config.json",
    "scheduler/scheduler_config.json",
)  # fmt: skip
GONE = object()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of each kind of models, saved once."""
    folders = {kind: tmp_path_factory.mktemp("models") / kind for kind in KINDS}
    for kind, folder in folders.items():
        save_model(kind, folder)
    return folders


def changed(source, folder, file, key, value):
    """A copy of a model with one value of one of its configs changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=os.link)
    content = json.loads((folder / file).read_text())
    content[key] = value
    if value is GONE:
        del content[key]
    (folder / file).unlink()
    (folder / file).write_text(json.dumps(content))
    return folder


def resolve(folder, once=None):
    return resolve_image_model(ModelSpec(model=str(folder)), WHERE, on_gpu=False, once=once)


WHOLE, SIDES = "should be a whole number from 1 on, but", "should be a whole number from 1 on, or"


@pytest.mark.parametrize(
    ("kind", "file", "key", "value", "says"),
    [
        ("stable", "unet/config.json", "in_channels", GONE, f"in_channels {WHOLE} is missing"),
        ("stable", "unet/config.json", "in_channels", "four", f"in_channels {WHOLE} is 'four'"),
        ("stable", "unet/config.json", "out_channels", [], f"out_channels {WHOLE} is []"),
        ("stable", "unet/config.json", "sample_size", "x", f"sample_size {SIDES}"),
        ("stable", "unet/config.json", "sample_size", [1, 2, 3], f"sample_size {SIDES}"),
        ("stable", "unet/config.json", "sample_size", -8, f"sample_size {SIDES}"),
        ("stable", "unet/config.json", "sample_size", 10**12, f"sample_size {SIDES}"),
        ("stable", "unet/config.json", "quantization_config", 7, "should be an object with keys"),
        ("stable", "vae/config.json", "latent_channels", GONE, f"latent_channels {WHOLE} is missi"),
        ("stable", "vae/config.json", "in_channels", GONE, f"in_channels {WHOLE} is missing"),
        ("stable", "vae/config.json", "block_out_channels", 7, "should be a list of whole numbers"),
        ("stable", "vae/config.json", "scaling_factor", "x", "should be a finite number"),
        ("stable", "vae/config.json", "scaling_factor", 0, "no scale of latents"),
        ("stable", "scheduler/scheduler_config.json", "num_train_timesteps", 10**12, "at most"),
        ("ldm", "scheduler/scheduler_config.json", "trained_betas", 7, "betas make no schedule"),
        ("ldm", "vqvae/config.json", "vq_embed_dim", [4], f"vq_embed_dim {WHOLE} is [4]"),
        ("dit", "transformer/config.json", "num_embeds_ada_norm", "x", WHOLE),
        ("imagegpt", "config.json", "n_positions", GONE, f"n_positions {WHOLE} is missing"),
        ("imagegpt", "config.json", "n_positions", -64, f"n_positions {WHOLE} is -64"),
        ("imagegpt", "config.json", "vocab_size", [1], f"vocab_size {WHOLE} is [1]"),
        ("imagegpt", "preprocessor_config.json", "clusters", 7, "should be a list of colors"),
        ("imagegpt", "preprocessor_config.json", "clusters", [["x"]], "of three numbers each"),
        ("autoencoder_kl", "config.json", "sample_size", "x", f"sample_size {WHOLE} is 'x'"),
        ("autoencoder_kl", "config.json", "latent_channels", GONE, f"latent_channels {WHOLE} is m"),
        ("autoencoder_kl", "config.json", "in_channels", None, f"in_channels {WHOLE} is null"),
        ("autoencoder_kl", "config.json", "scaling_factor", "x", "should be a finite number"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_by_its_key(
    saved, tmp_path, kind, file, key, value, says
):
    folder = changed(saved[kind], tmp_path / kind, file, key, value)
    with pytest.raises(InputError) as caught:
        resolve(folder)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{WHERE}: {folder / file}")
    assert key.removeprefix("trained_") in problem
    assert says in problem


VALUES = st.recursive(
    st.none() | st.booleans() | st.sampled_from((-8, 1, 7, 64)) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_config_is_read_or_refused(saved, tmp_path, data):
    kind = data.draw(st.sampled_from(KINDS))
    file = data.draw(st.sampled_from([f for f in FILES if (saved[kind] / f).is_file()]))
    key = data.draw(st.sampled_from(sorted(json.loads((saved[kind] / file).read_text()))))
    folder = changed(saved[kind], tmp_path / kind, file, key, data.draw(VALUES | st.just(GONE)))
    try:
        resolve(folder, Once())
    except InputError as error:
        assert str(error).startswith(WHERE)  # noqa: PT017
