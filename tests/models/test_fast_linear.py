"""Products of oneDNN in place of MKL's: the same numbers and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import checkpoint, passages, save_adapter, save_tiny
from torch import nn
from transformers.pytorch_utils import Conv1D

from raymia.models import fast_linear
from raymia.models.causal.family import load_causal_lm
from raymia.models.fast_linear import FastConv1D, FastLinear, use_fast_linears

IN, OUT = 96, 192
SHAPES = [(400, IN), (4, 100, IN), (2, 2, 100, IN)]


def layers(kind, bias=True):
    """A layer, and one of the same weights that was made fast."""
    torch.manual_seed(0)
    plain = nn.Linear(IN, OUT, bias=bias) if kind is nn.Linear else Conv1D(OUT, IN)
    nn.init.normal_(plain.weight)
    if bias:
        nn.init.normal_(plain.bias)
    fast = nn.Sequential(nn.Linear(IN, OUT, bias=bias) if kind is nn.Linear else Conv1D(OUT, IN))
    fast[0].load_state_dict(plain.state_dict())
    use_fast_linears(fast)
    return plain, fast[0]


@pytest.fixture
def products(monkeypatch):
    """The shapes of the products that oneDNN was asked for."""
    asked, product = [], fast_linear._product

    def noting(given, weight, bias=None):
        asked.append((tuple(given.shape), tuple(weight.shape)))
        return product(given, weight, bias)

    monkeypatch.setattr(fast_linear, "_product", noting)
    return asked


@pytest.mark.parametrize(("kind", "bias"), [(nn.Linear, True), (nn.Linear, False), (Conv1D, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_product_is_that_of_float64(products, kind, bias, shape):
    plain, fast = layers(kind, bias)
    given = torch.randn(shape)
    with torch.inference_mode():
        found = fast(given)
    weight = plain.weight.double() if kind is Conv1D else plain.weight.double().t()
    wanted = given.double() @ weight + (plain.bias.double() if bias else 0)
    assert products == [(shape, (OUT, IN))]
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_inputs_may_lie_in_memory_as_they_like(kind):
    plain, fast = layers(kind)
    given = torch.randn(IN, 4, 100).permute(1, 2, 0)
    with torch.inference_mode():
        torch.testing.assert_close(fast(given), plain(given), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_plain_layer(products, kind, shape):
    plain, fast = layers(kind)
    found = []
    for layer in (plain, fast):
        torch.manual_seed(1)
        given = torch.randn(shape, requires_grad=True)
        (layer(given) * torch.randn(*shape[:-1], OUT)).sum().backward()
        found.append((given.grad, layer.weight.grad, layer.bias.grad))
    assert len(products) == 3
    for ours, theirs in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)


def test_frozen_weights_get_no_gradients(products):
    _, fast = layers(nn.Linear)
    fast.requires_grad_(False)
    given = torch.randn(400, IN, requires_grad=True)
    fast(given).sum().backward()
    assert given.grad is not None
    assert fast.weight.grad is None
    assert len(products) == 2


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_a_row_has_the_same_sums_whatever_the_others(kind):
    _, fast = layers(kind)
    given = torch.randn(333, IN)
    with torch.inference_mode():
        together = fast(given)
        for rows in (2, 7, 31, 100):
            assert torch.equal(fast(given[:rows]), together[:rows])


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_what_is_not_float32_is_left_to_pytorch(products, kind):
    plain, fast = layers(kind)
    given = torch.randn(400, IN, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(fast.bfloat16()(given), plain.bfloat16()(given))
    assert products == []


def test_small_layers_are_left_to_pytorch(products):
    fast = nn.Sequential(nn.Linear(64, 64))
    use_fast_linears(fast)
    fast(torch.randn(400, 64))
    assert products == []


def test_layers_of_other_kinds_stay_as_they_are():
    class Other(nn.Linear):
        pass

    model = nn.Sequential(Other(IN, OUT), nn.LayerNorm(OUT), nn.Linear(OUT, IN))
    use_fast_linears(model)
    assert [type(layer) for layer in model] == [Other, nn.LayerNorm, FastLinear]


# ------------------------------------------------------------------ models that are loaded


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(("kind", "layer"), [("llama", FastLinear), ("gpt2", FastConv1D)])
@pytest.mark.parametrize("adapted", [False, True])
def test_models_say_the_same_with_it(tmp_path, monkeypatch, products, kind, layer, adapted):
    base = save_tiny(tmp_path / kind, kind)
    adapter = str(save_adapter(tmp_path / "adapter", base)) if adapted else None
    texts, answers = passages(6), []
    monkeypatch.setattr(fast_linear, "MIN_WEIGHTS", 1)
    for gains in (False, True):
        monkeypatch.setattr(fast_linear, "gains_by_onednn", lambda gains=gains: gains)
        model = load_causal_lm(checkpoint(base, adapter=adapter), batch_tokens=1_024)
        assert any(type(part) is layer for part in model.model.modules()) is gains
        products.clear()
        answers.append(model.answer(texts, moments=True))
        assert bool(products) is gains
    for plain, fast in zip(*answers, strict=True):
        np.testing.assert_allclose(fast.log_prob, plain.log_prob, rtol=0, atol=1e-5)
        np.testing.assert_allclose(fast.std_log_prob, plain.std_log_prob, rtol=0, atol=1e-5)
