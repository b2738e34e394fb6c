"""Noise on embeddings is as large beside what the first layer takes, whatever the architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import checkpoint, passages, save_adapter, save_tiny

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.perturbed import NoiseRequest, answer_perturbed
from raymia.util.errors import RaymiaError

SIZE = 0.1


def load(folder, **settings):
    return load_causal_lm(checkpoint(folder, **settings), batch_tokens=512)


def noisy(model, text, *sizes):
    return [
        answer.log_prob
        for answer in answer_perturbed(model, [NoiseRequest(text, 1, size) for size in sizes])
    ]


def first_layer(model):
    body = model.model.get_base_model() if hasattr(model.model, "peft_config") else model.model
    body = body.base_model
    return (body.layers if hasattr(body, "layers") else body.h)[0]


@pytest.mark.parametrize("tokens", [None, [5, 6]])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2"])
def test_noise_has_the_size_that_was_asked_for_in_embeddings_as_they_enter(tmp_path, kind, tokens):
    """Those of Gemma multiply the rows of their matrix by the root of its width, also where an
    adapter has trained some of them."""
    folder, adapter = save_tiny(tmp_path / "base", kind), None
    if tokens is not None:
        targets = ["c_attn"] if kind == "gpt2" else ["q_proj"]
        settings = {"target_modules": targets, "trainable_token_indices": tokens}
        adapter = str(save_adapter(tmp_path / "adapter", folder, **settings))
    model = load(folder, adapter=adapter)
    (text,) = passages(1)
    entered = []
    first_layer(model).register_forward_pre_hook(
        lambda _, given, named: entered.append((*given, *named.values())[0].clone()),
        with_kwargs=True,
    )
    noisy(model, text, 0.0, SIZE)
    clean, changed = (row for batch in entered for row in batch)
    table = model.model.get_input_embeddings()
    unit = table(torch.arange(len(table.weight))[None]).std()
    assert float(((changed - clean).std() / unit).detach()) == pytest.approx(SIZE, rel=0.05)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "granite"])
def test_without_noise_a_model_says_what_it_says_of_tokens(tmp_path, kind):
    model = load(save_tiny(tmp_path, kind))
    (text,) = passages(1)
    np.testing.assert_allclose(
        noisy(model, text, 0.0)[0], model.answer([text], moments=False)[0].log_prob, atol=1e-4
    )


def test_a_model_that_scales_what_it_looks_up_scales_the_noise_too(tmp_path):
    """Falcon-H1 does so where it is given tokens, and not where it is given embeddings."""
    model = load(save_tiny(tmp_path, "falcon-h1"))
    (text,) = passages(1)
    clean, small = noisy(model, text, 0.0, 1e-3)
    np.testing.assert_allclose(clean, model.answer([text], moments=False)[0].log_prob, atol=1e-4)
    assert 0 < np.abs(small - clean).max() < 0.5


def test_an_adapter_that_tokens_invoke_is_on_in_a_text_with_noise(tmp_path):
    base = save_tiny(tmp_path / "base", "llama")
    settings = {"target_modules": ["q_proj", "v_proj"], "alora_invocation_tokens": [259]}
    adapted = load(base, adapter=str(save_adapter(tmp_path / "adapter", base, **settings)))
    text = f"{passages(1)[0]}{adapted.tokenizer.decode([259])}{passages(2)[1]}"
    assert 259 in adapted.encode([text])[0]
    said = adapted.answer([text], moments=False)[0].log_prob
    assert np.abs(said - load(base).answer([text], moments=False)[0].log_prob).max() > 0.01
    np.testing.assert_allclose(noisy(adapted, text, 0.0)[0], said, atol=1e-4)


def test_a_model_that_does_not_look_its_embeddings_up_is_given_no_noise(tmp_path, monkeypatch):
    model = load(save_tiny(tmp_path, "llama"))
    body, unused = model.model.model, torch.nn.Embedding(2048, 32)
    monkeypatch.setattr(model.model, "get_input_embeddings", lambda: unused)
    assert body.embed_tokens is not unused
    with pytest.raises(RaymiaError, match="no noise can be put on them"):
        noisy(model, passages(1)[0], SIZE)
