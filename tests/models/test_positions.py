"""No model is asked about a position that it has not: on a GPU that ends the process."""

from __future__ import annotations

import math

import pytest
import torch
import transformers
from edited import edit
from tiny_models import passages, save_tiny
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from raymia.models.causal.facts import (
    BOTH_WAYS,
    CONTEXTS,
    LARGEST_CONTEXT,
    context_length,
    usable_positions,
)
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.spec import ModelSpec, PoolSpec
from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError

ENDLESS = {"bloom", "falcon_mamba", "mamba", "mamba2", "recurrent_gemma", "xlstm"}
"""Types of models without a table of positions, whose configs say no context."""
WHERE = "targets[0].model"


def default_config(name):
    """An architecture's config as it is without settings; None where it needs some, a package that
    is not here, or has several models of texts."""
    try:
        config = transformers.CONFIG_MAPPING[name]()
        config.get_text_config()
    except Exception:
        return None
    return config


@pytest.mark.long
def test_every_family_of_language_models_has_a_context_or_no_table_of_positions():
    configs = {name: default_config(name) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    known = {name: config for name, config in configs.items() if config is not None}
    assert len(known) > 100
    without = {name for name, config in known.items() if context_length(config) is None}
    assert without <= ENDLESS | BOTH_WAYS


@pytest.mark.parametrize("name", sorted(ENDLESS - {"xlstm"}))
def test_families_without_a_context_have_no_table_of_positions(name):
    config = transformers.CONFIG_MAPPING[name](num_hidden_layers=3)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    assert tables == [model.get_input_embeddings()]
    assert not any("pos" in n for n, b in model.named_buffers() if math.prod(b.shape) > 64)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("transformer.wpe.weight", 14),
        ("model.decoder.embed_positions.weight", 14),
        ("backbone.pos_emb.weight", 14),
        ("position_embedding.weight", 14),
        ("positional_encoding", 14),
        ("vision_tower.position_embedding.weight", None),
        ("layers.0.positive.weight", None),
        ("layers.0.relative_position_bias.weight", None),
    ],
)
def test_a_table_of_positions_bounds_texts_where_no_config_does(name, expected):
    tensors = {name: TensorHeader("F32", (16, 8)), "other.weight": TensorHeader("F32", (4, 8))}
    assert usable_positions(tensors, None) == expected
    assert usable_positions(tensors, 9) == 9


def test_a_table_of_one_row_leaves_one_token():
    assert usable_positions({"wpe.weight": TensorHeader("F32", (1, 8))}, None) == 1


def test_model_whose_config_says_no_context_is_asked_within_its_table(tmp_path, monkeypatch):
    """As one whose family calls its context by a name that nobody here knows."""
    folder = save_tiny(tmp_path, "gpt2", n_positions=32)
    named = [key for key in CONTEXTS if key not in ("n_positions", "max_position_embeddings")]
    monkeypatch.setattr("raymia.models.causal.facts.CONTEXTS", named)
    found = resolve_causal_lm(ModelSpec(model=str(folder)), WHERE, on_gpu=True)
    assert found.context == 30
    model = resolve_causal_lm(ModelSpec(model=str(folder)), WHERE, on_gpu=False)
    model = model.loader(PoolSpec()).load()
    (text,) = passages(1)
    (answer,) = model.answer([text * 9], moments=False)
    assert answer.truncated
    assert len(answer.log_prob) == 29


def test_config_of_several_models_of_texts_is_refused(tmp_path):
    folder = save_tiny(tmp_path, "gpt2")
    kinds = {"text_encoder": "t5", "audio_encoder": "encodec", "decoder": "musicgen_decoder"}
    parts = {part: {"model_type": kind} for part, kind in kinds.items()}
    edit(folder / "config.json", model_type="musicgen", **parts)
    with pytest.raises(InputError, match=r"config\.json describes several models of texts"):
        resolve_causal_lm(ModelSpec(model=str(folder)), WHERE, on_gpu=False)


@pytest.mark.parametrize("says", [LARGEST_CONTEXT, 10**9])
def test_code_of_its_own_without_a_bound_needs_one_on_a_gpu(tmp_path, says):
    folder = save_tiny(tmp_path, "llama")
    classes = {"AutoModelForCausalLM": "modeling.Own"}
    edit(folder / "config.json", auto_map=classes, max_position_embeddings=says)
    settings = {"model": str(folder), "trust_remote_code": True}
    with pytest.raises(InputError, match=r"^targets\[0\]\.max_tokens: neither the config"):
        resolve_causal_lm(ModelSpec(**settings), WHERE, on_gpu=True)
    assert resolve_causal_lm(ModelSpec(**settings), WHERE, on_gpu=False).context is None
    bounded = ModelSpec(**settings, max_tokens=64)
    assert resolve_causal_lm(bounded, WHERE, on_gpu=True).context == 64
