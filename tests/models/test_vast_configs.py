"""A config that says of a model far larger than its weights, or of none, is refused in seconds and
by its key, and not built."""

from __future__ import annotations

import json
import resource
import time
from contextlib import contextmanager, suppress

import pytest
import torch
from architecture_sweep import small_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_image_models import save_model
from tiny_models import BASE
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.config_bounds import no_more_parts
from raymia.models.image_source import resolve_image_model
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import InputError

WHERE = "targets[0].model"
SECONDS, MEMORY = 20, 2**30
"""Within which every config is accepted or refused, on a machine that is busy."""
TEXTS = ("gpt2", "gpt_neo", "llama", "qwen3_moe", "gemma3_text", "granite")
PARTS = ("unet", "transformer", "vae", "text_encoder", "scheduler", ".")
VALUES = st.sampled_from(
    [10**12, 10**9, 10**6, -(10**12), -1, 0, 1.5, "x", True, None, [], [1], [10**9] * 9, {}]
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folders = {}
    for name in TEXTS:
        folders[name] = tmp_path_factory.mktemp("texts") / name
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(small_config(name))
        model.save_pretrained(folders[name])
        AutoTokenizer.from_pretrained(BASE).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folders = {kind: tmp_path_factory.mktemp("images") / kind for kind in ("stable", "dit")}
    for kind, folder in folders.items():
        save_model(kind, folder)
    return folders


def resolved(folder, resolve):
    return resolve(ModelSpec(model=str(folder)), WHERE, on_gpu=False)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def within_bounds(folder, resolve):
    """What a folder is resolved to; None where it is refused."""
    began, before = time.monotonic(), peak()
    try:
        found = resolved(folder, resolve)
    except InputError as error:
        found, problems = None, error.problems
    else:
        problems = []
    assert all(problem.startswith(WHERE) for problem in problems)
    assert time.monotonic() - began < SECONDS
    assert peak() - before < MEMORY
    return found


@contextmanager
def changed(file, path, value):
    """A config with one value changed, for as long as it is looked at."""
    before = file.read_bytes()
    content = json.loads(before)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file.write_text(json.dumps(content))
    try:
        yield
    finally:
        file.write_bytes(before)


def places(content, path=()):
    """The way to every value in a config."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            yield (*path, key)
            yield from places(value, (*path, key))


@pytest.mark.parametrize("value", [10**12, 10**8])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("llama", ["num_hidden_layers"]),
        ("gpt2", ["n_layer"]),
        ("gpt_neo", ["attention_types", 0, 1]),
        ("qwen3_moe", ["num_experts"]),
    ],
)
def test_more_layers_than_any_model_has_are_refused_by_their_key(texts, name, path, value):
    file = texts[name] / "config.json"
    with changed(file, path, value), pytest.raises(InputError) as caught:
        resolved(texts[name], resolve_causal_lm)
    assert str(caught.value) == (
        f"{WHERE}: {file}: {path[0]} should be from -100,000 to 100,000, but is {value}; copy the "
        "checkpoint's own config.json"
    )


@pytest.mark.parametrize(
    ("kind", "part", "key"),
    [
        ("stable", "unet", "layers_per_block"),
        ("stable", "unet", "transformer_layers_per_block"),
        ("stable", "vae", "layers_per_block"),
        ("stable", "text_encoder", "num_hidden_layers"),
        ("dit", "transformer", "num_layers"),
    ],
)
@pytest.mark.parametrize(("value", "words"), [(10**9, "100,000, but is"), (9_999, "parts (layers")])
def test_parts_of_a_pipeline_are_bounded_as_they_are_built(images, kind, part, key, value, words):
    file = images[kind] / part / "config.json"
    with changed(file, [key], value), pytest.raises(InputError) as caught:
        resolved(images[kind], resolve_image_model)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["llama", "granite"])
@pytest.mark.parametrize("key", ["hidden_size", "head_dim"])
def test_a_width_beyond_all_weights_is_refused_before_frequencies_are_made(texts, name, key):
    file = texts[name] / "config.json"
    before = peak()
    with changed(file, [key], 10**9), pytest.raises(InputError, match="and its weights have"):
        resolved(texts[name], resolve_causal_lm)
    assert peak() - before < MEMORY


def test_less_than_no_heads_are_refused_by_their_key(texts):
    """Shapes that are computed by them can fit the weights."""
    with (
        changed(texts["gpt2"] / "config.json", ["n_head"], -1),
        pytest.raises(InputError) as caught,
    ):
        resolved(texts["gpt2"], resolve_causal_lm)
    assert "n_head should be from 0 to 100,000, but is -1" in str(caught.value)


@pytest.mark.parametrize("value", [[7], [None], "LlamaForCausalLM", {"a": 1}])
def test_names_of_classes_are_texts_in_a_list(texts, value):
    file = texts["llama"] / "config.json"
    with (
        changed(file, ["architectures"], value),
        pytest.raises(InputError, match="a list of names"),
    ):
        resolved(texts["llama"], resolve_causal_lm)


def test_what_is_built_elsewhere_is_not_counted_after_that():
    with no_more_parts(1), pytest.raises(InputError, match="more than 1,010 parts"):
        torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(500)))
    torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(500)))


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_in_a_text_models_config_ends_in_acceptance_or_a_sentence(texts, data):
    name = data.draw(st.sampled_from(TEXTS))
    file = texts[name] / "config.json"
    path = data.draw(st.sampled_from([*places(json.loads(file.read_bytes()))]))
    with changed(file, path, data.draw(VALUES)):
        found = within_bounds(texts[name], resolve_causal_lm)
        if found is not None and data.draw(st.integers(0, 9)) == 0:
            with suppress(InputError):  # where it takes a text to see it
                found.loader(PoolSpec()).load()


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_in_an_image_models_config_ends_in_acceptance_or_a_sentence(images, data):
    kind = data.draw(st.sampled_from(sorted(images)))
    files = sorted(f for part in PARTS for f in (images[kind] / part).glob("*.json"))
    file = data.draw(st.sampled_from([f for f in files if "config" in f.name or "index" in f.name]))
    path = data.draw(st.sampled_from([*places(json.loads(file.read_bytes()))]))
    with changed(file, path, data.draw(VALUES)):
        within_bounds(images[kind], resolve_image_model)
