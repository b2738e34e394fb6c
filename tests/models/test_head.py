"""The output layer in tiles: what it answers, whatever the tiles, and what it holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import checkpoint, passages, save_tiny

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.fold import After, TorchFold
from raymia.models.causal.head import product
from raymia.models.causal.tiles import tile_of, whole_rows

NOTHING, CAP = After(), After("cap", 30.0)
AFTER = [NOTHING, After("multiply", 0.0625), After("divide", 8.0), CAP]
TOKENS, VOCABULARY, WIDTH = 6, 1_003, 16


@pytest.fixture
def triton_fold(monkeypatch):
    """The kernel as Triton's interpreter runs it, without a GPU: see conftest."""
    pytest.importorskip("triton")
    from raymia.models.causal import fold_triton

    monkeypatch.setattr(fold_triton, "BLOCK", 512)
    return fold_triton.TritonFold


@pytest.fixture(params=["torch", "triton"])
def fold(request):
    return TorchFold if request.param == "torch" else request.getfixturevalue("triton_fold")


def made(seed=0, size=8.0):
    """Products with ties for the largest, a label at it, and one token that is all but certain."""
    random = torch.Generator().manual_seed(seed)
    products = size * torch.randn((TOKENS, VOCABULARY), generator=random)
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=random)
    products[0, [300, 700, 1_002]] = products.max() + 1
    labels[0] = 300
    products[1, [5, 900]] = products.max()
    labels[1] = 900
    products[2, labels[2]] = 60.0
    bias = torch.randn(VOCABULARY, generator=random)
    bias[[5, 300, 700, 900, 1_002]] = 0
    return products, labels, bias


def folded(fold, products, labels, after, bias, columns, moments=True):
    made = fold(labels, after, moments=moments)
    for start in range(0, products.shape[1], columns):
        part = slice(start, start + columns)
        made.add(products[:, part].clone(), None if bias is None else bias[part], start)
    return made.columns()


def exact(products, labels, after, bias):
    logits = after.of(products.double() if bias is None else products.double() + bias)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    there = torch.where(p > 0, log_p, 0)
    mean = (p * there).sum(-1)
    std = (p * (there - mean[:, None]) ** 2).sum(-1).sqrt()
    return log_p.gather(-1, labels[:, None])[:, 0], mean, std, logits.argmax(-1) == labels


def assert_exact(found, expected, tolerance=1e-5):
    log_prob, mean, std, is_top1 = expected
    for column, right in ((found.log_prob, log_prob), (found.mean, mean), (found.std, std)):
        assert column.dtype == torch.float32
        np.testing.assert_allclose(column.numpy(), right.numpy(), rtol=1e-7, atol=tolerance)
    assert found.is_top1.tolist() == is_top1.tolist()


@pytest.mark.parametrize("columns", [VOCABULARY, 340])
@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("after", AFTER, ids=lambda after: after.kind)
def test_fold_is_the_definition_whatever_the_tiles(fold, after, biased, columns):
    products, labels, bias = made()
    bias = bias if biased else None
    found = folded(fold, products, labels, after, bias, columns)
    assert_exact(found, exact(products, labels, after, bias))
    assert found.is_top1[:3].tolist() == [True, False, True], "of equal logits the first counts"


def test_without_moments_only_log_probs_are_answered_and_they_are_the_same(fold):
    products, labels, _ = made()
    found = folded(fold, products, labels, CAP, None, 256, moments=False)
    assert (found.mean, found.std, found.is_top1) == (None, None, None)
    whole = folded(fold, products, labels, CAP, None, 256)
    assert found.log_prob.tolist() == whole.log_prob.tolist()


def test_tokens_that_cannot_be_cost_no_answer(fold):
    """A model may give tokens a logit of minus infinity, and so a whole tile."""
    products, labels, _ = made(size=2.0)
    products[:, :300] = -torch.inf
    products[:, 800:] = -torch.inf
    labels[:] = torch.arange(400, 400 + TOKENS)
    for columns in (VOCABULARY, 150):
        found = folded(fold, products, labels, NOTHING, None, columns)
        assert_exact(found, exact(products, labels, NOTHING, None))


def test_logits_that_are_not_finite_spoil_their_own_token_alone(fold):
    products, labels, _ = made()
    products[3, 7] = torch.nan
    products[4] = -torch.inf
    found = folded(fold, products, labels, NOTHING, None, 256)
    assert torch.isfinite(found.log_prob).tolist() == [True] * 3 + [False] * 2 + [True]


def test_large_logits_far_from_zero_keep_their_moments(fold):
    """One sum less the square of another would have lost them."""
    products, labels, _ = made(size=0.01)
    products[:3] = 0.01 * torch.randn((3, VOCABULARY), generator=torch.Generator().manual_seed(9))
    assert_exact(
        folded(fold, products + 128, labels, NOTHING, None, 256),
        exact(products + 128, labels, NOTHING, None),
    )


# ------------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("gpt2", NOTHING), ("gptj", NOTHING), ("falcon-alibi", NOTHING), ("gemma2", CAP),
        ("cohere", After("multiply", 0.0625)), ("granite", After("divide", 8.0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_follows_the_output_layer_is_found_out(tmp_path, kind, after, dtype):
    model = load_causal_lm(checkpoint(save_tiny(tmp_path, kind), dtype=dtype), batch_tokens=512)
    assert model.head.after == after


def test_sixteen_bits_are_not_rounded_to_after_the_product(tmp_path):
    """Against float64 from the same hidden states: rounded logits would be off by 1e-2."""
    for kind in ("llama", "gemma2"):
        folder = save_tiny(tmp_path / kind, kind, tie_word_embeddings=False)
        model = load_causal_lm(checkpoint(folder, dtype="bfloat16"), batch_tokens=512)
        ids = torch.tensor([model.encode(passages(1))[0]])
        with torch.inference_mode():
            hidden = model.head.hidden(torch.ones_like(ids), input_ids=ids)[0, :-1]
            found = model.head.log_probs(hidden, ids[0, 1:], moments=True)
            products = hidden.double() @ model.head.output.weight.double().T
        assert_exact(found, exact(products, ids[0, 1:], model.head.after, None))


@pytest.mark.long
def test_bfloat16_of_a_7b_model_is_right_to_a_thousandth():
    """Vectors of 4,096 and 32,000 tokens, as Llama 2 has them."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn((4, 4_096), generator=random).bfloat16()
    matrix = torch.empty((32_000, 4_096), dtype=torch.bfloat16).uniform_(-0.05, 0.05)
    labels = torch.randint(32_000, (4,), generator=random)
    tile = tile_of("cpu", *matrix.shape, 2, copies=2)
    fold = TorchFold(labels, NOTHING, moments=True)
    parts = [matrix[at : at + tile.columns] for at in range(0, len(matrix), tile.columns)]
    for number, part in enumerate(parts):
        fold.add(product(hidden, part), None, number * tile.columns)
    found = fold.columns()
    wide = hidden.double()
    logits = torch.cat([wide @ part.double().T for part in parts], dim=1)
    right = exact(logits, labels, NOTHING, None)
    for column, expected in zip((found.log_prob, found.mean, found.std), right[:3], strict=True):
        assert float((column - expected).abs().mean()) < 1e-3
        assert float((column - expected).abs().max()) < 1e-4, "as exact as sums in float32 are"


def test_float32_on_a_cpu_is_computed_as_it_was(base):
    """Answers that were stored before go with those of today: the same sums in the same order."""
    ids = torch.tensor([base.encode(passages(1))[0]])
    with torch.inference_mode():
        hidden = base.model.base_model(ids)[0][0, :-1]
        logits = base.model.get_output_embeddings()(hidden)
        labels = ids[0, 1:]
        top = logits.max(-1, keepdim=True)
        shifted = logits - top.values
        weights = shifted.exp()
        mass = weights.sum(-1)
        mean = torch.linalg.vecdot(weights, shifted) / mass
        away = shifted - mean[:, None]
        std = (torch.linalg.vecdot(weights * away, away) / mass).sqrt()
        label = shifted.gather(-1, labels[:, None])[:, 0]
        found = base.head.log_probs(hidden, labels, moments=True)
    assert found.log_prob.tolist() == (label - mass.log()).tolist()
    assert found.mean.tolist() == (mean - mass.log()).tolist()
    assert found.std.tolist() == std.tolist()


# ------------------------------------------------------------------------- memory


@pytest.mark.parametrize("vocabulary", [32_000, 50_257, 151_936, 262_144])
@pytest.mark.parametrize("width", [768, 2_304, 4_096, 8_192])
def test_tiles_take_at_most_300_mb_whatever_the_model(vocabulary, width):
    for device, copies in (("cpu", 2), ("cuda", 1), ("cuda", 2), ("mps", 2)):
        for itemsize in (2, 4):
            tile = tile_of(device, vocabulary, width, itemsize, copies=copies)
            held = 4 * tile.rows * tile.columns * copies
            if device == "cpu" and itemsize == 2:
                held += 4 * width * (tile.rows + tile.columns)  # both sides in float32
            assert held <= 300e6, (device, itemsize, tile)
        tile = whole_rows(device, vocabulary)
        assert 4 * tile.rows * tile.columns * copies <= 300e6
    assert tile_of("cuda", vocabulary, width, 2, copies=1).rows == 4_096
