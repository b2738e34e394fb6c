"""Texts in one row are answered as each is alone."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers
from architecture_sweep import ARCHITECTURES, small_config
from tiny_models import BASE, checkpoint, save_adapter, save_tiny

from raymia.models.causal import packing
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.packing import KINDS, answers_in_a_row, hidden_of_row
from raymia.models.causal.reading import Rendered

pytestmark = pytest.mark.filterwarnings("ignore")

WINDOW = 16
LENGTHS = (230, 200, 128, 100, 100, 64, 31, 17, 9, 5, 2, 1)
"""Of texts in one row: longer than a window, as long as another, and too short to be scored."""
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(BASE)


def small(kind, tokenizer, **settings):
    """A model with random weights; where its layers look at a window, at a short one."""
    torch.manual_seed(0)
    config = small_config(kind)
    for key, value in {"sliding_window": WINDOW, **settings}.items():
        if getattr(config, key, None) is not None:
            setattr(config, key, value)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return CausalLM(model, tokenizer, batch_tokens=4_096)


def texts_of(lengths=LENGTHS):
    draws = random.Random(0)
    return [[draws.randrange(4, 2_000) for _ in range(length)] for length in lengths]


@torch.inference_mode()
def logits(model, ids):
    return model.head.logits(hidden_of_row(model, ids))


@torch.inference_mode()
def logits_alone(model, ids):
    """What transformers itself says of one text."""
    return model.model(input_ids=torch.tensor([ids])).logits[0].float()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_text_of_a_row_is_answered_as_alone(kind, tokenizer):
    model, ids = small(kind, tokenizer), texts_of()
    assert model.packs
    alone = torch.cat([logits_alone(model, text) for text in ids])
    assert float((logits(model, ids) - alone).abs().max()) < ROUNDING


@pytest.mark.parametrize(("kind", "masked"), [("llama", set()), ("gemma3_text", {17, 31})])
def test_a_mask_is_made_only_where_a_text_is_more_than_causal(kind, masked, tokenizer, monkeypatch):
    """Without one, attention may take its flash kernel."""
    model, made = small(kind, tokenizer), []
    assert model.packs
    mask_of = transformers.masking_utils.sdpa_mask

    def noted(**options):
        mask = mask_of(**options)
        made.append((options["q_length"], mask is None))
        return mask

    monkeypatch.setattr(transformers.masking_utils, "sdpa_mask", noted)
    logits(model, texts_of((31, 17, WINDOW - 1, 9)))
    assert {length for length, _ in made} == {31, 17, WINDOW - 1, 9}
    assert {length for length, is_none in made if not is_none} == masked


@pytest.mark.parametrize("kind", sorted({*ARCHITECTURES} - KINDS))
def test_other_models_are_given_padded_texts(kind, tokenizer):
    assert not small(kind, tokenizer).packs


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_a_text_is_answered_as_alone_whatever_is_beside_it(kind, tokenizer):
    model, (one, *others) = small(kind, tokenizer), texts_of((40, 90, 33, 33, 7))
    others = [Rendered(ids) for ids in others]
    (alone,) = model.answer_read([Rendered(one)], moments=True)
    for beside in ([], others[:1], others[1:], others):
        answers = model.answer_read([*beside, Rendered(one)], moments=True)
        for column in ("log_prob", "std_log_prob"):
            np.testing.assert_allclose(
                getattr(answers[-1], column), getattr(alone, column), rtol=0, atol=ROUNDING
            )


def test_a_forward_pass_has_the_texts_tokens_and_no_more(tokenizer):
    model = small("llama", tokenizer)
    seen = []
    model.model.get_input_embeddings().register_forward_hook(
        lambda _layer, given, _output: seen.append(given[0].numel())
    )
    model.batch_tokens = 300
    model.answer_read([Rendered(ids) for ids in texts_of()], moments=False)
    assert sum(seen) == sum(LENGTHS)
    assert max(seen) <= 300
    assert len(seen) == 4


def test_only_what_is_scored_is_asked_for(tokenizer):
    model, (long, short) = small("llama", tokenizer), texts_of((60, 20))
    scored = np.zeros(60, bool)
    scored[[0, 7, 59]] = True
    records = [Rendered(long, scored), Rendered(short)]
    whole, other = model.answer_read([Rendered(long), Rendered(short)], moments=True)
    some, same = model.answer_read(records, moments=True)
    assert some.token_ids.tolist() == [long[7], long[59]]
    np.testing.assert_allclose(some.log_prob, whole.log_prob[[6, 58]], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(same.log_prob, other.log_prob)


def test_a_text_that_is_longer_than_its_windows_goes_into_a_row_part_by_part(tokenizer):
    short = small("llama", tokenizer)
    model = CausalLM(
        short.model, tokenizer, batch_tokens=4_096, max_tokens=32, long_texts="windows"
    )
    (answer,) = model.answer_read([Rendered(texts_of((100,))[0])], moments=False)
    assert model.packs
    assert len(answer.log_prob) == 99


# ------------------------------------------------------------------- who is not asked so


def test_a_model_by_code_of_its_own_is_given_padded_texts(tokenizer):
    model = small("llama", tokenizer)
    body = model.head.body
    body.__class__ = type("Own", (type(body),), {"__module__": "transformers_modules.own"})
    assert not answers_in_a_row(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_model_whose_layers_look_beyond_a_text_is_given_padded_texts(tokenizer, dtype):
    model = small("llama", tokenizer)
    model.model.to(dtype)
    assert answers_in_a_row(model)
    norm = model.model.model.norm
    norm.register_forward_hook(lambda _layer, _given, out: out + out.cumsum(1) / 10)
    assert not answers_in_a_row(model)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_rounding_in_16_bits_is_not_taken_for_looking_beyond_a_text(kind, tokenizer):
    model = small(kind, tokenizer, initializer_range=0.5, num_hidden_layers=8)
    model.model.to(torch.bfloat16)
    assert answers_in_a_row(model)


def test_a_model_that_says_no_numbers_in_a_row_is_given_padded_texts(tokenizer):
    model = small("llama", tokenizer)
    model.model.model.norm.register_forward_hook(
        lambda _layer, _given, out: out * (1 if len(out) > 1 else torch.nan)
    )
    assert not answers_in_a_row(model)


def test_a_model_that_asks_for_attention_elsewhere_is_given_padded_texts(tokenizer, monkeypatch):
    model = small("llama", tokenizer)
    assert answers_in_a_row(model)
    monkeypatch.setattr(packing, "NAME", "sdpa")
    assert not answers_in_a_row(model)


@pytest.mark.parametrize(
    ("settings", "packs"),
    [
        ({"target_modules": ["q_proj"]}, True),
        ({"target_modules": ["q_proj"], "use_dora": True}, True),
        ({"target_modules": ["q_proj"], "alora_invocation_tokens": [259]}, False),
        ({"method": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []}, False),
        ({"method": "PrefixTuning", "num_virtual_tokens": 3}, False),
    ],
)
def test_adapters_that_may_look_at_a_text_as_a_whole_are_given_padded_texts(
    tmp_path, settings, packs
):
    base = save_tiny(tmp_path / "base", "llama")
    adapter = save_adapter(tmp_path / "adapter", base, **settings)
    model = load_causal_lm(checkpoint(base, adapter=str(adapter)), batch_tokens=512)
    assert model.packs == packs


def test_a_device_without_memory_is_not_taken_for_a_model_that_cannot(tokenizer, monkeypatch):
    model = small("llama", tokenizer)

    def fail(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(packing, "_run", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        answers_in_a_row(model)


def test_a_model_asks_as_before_after_a_row(tokenizer):
    model = small("llama", tokenizer)
    config = model.model.config
    logits(model, texts_of((5, 4)))
    assert config._attn_implementation == "sdpa"


# ----------------------------------------------------------------------- the GPU's kernel


def test_the_kernel_is_given_each_texts_bounds(monkeypatch):
    """The kernel runs on GPUs alone; a stand-in does here what it promises."""
    import torch.nn.attention.varlen as varlen

    def attend(query, key, value, ends, ends_of_keys, longest, _, *, scale, window_size,
               enable_gqa, num_splits):  # fmt: skip
        assert (window_size, num_splits, ends.dtype) == ((-1, 0), 1, torch.int32)
        assert longest == int(ends.diff().max())
        assert torch.equal(ends, ends_of_keys)
        parts = []
        for start, end in pairwise(ends):
            own = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
            part = torch.nn.functional.scaled_dot_product_attention(
                *own, is_causal=True, scale=scale, enable_gqa=enable_gqa
            )
            parts.append(part[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(varlen, "varlen_attn", attend)
    row = packing._Row([5, 3, 3, 0, 1])
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 12, 8), torch.randn(1, 2, 12, 8), torch.randn(1, 2, 12, 8)

    class Layer:
        num_key_value_groups, is_causal = 2, True

    masks = packing._Masks(row, dict.fromkeys({5, 3, 1}))
    by_runs, _ = packing._attend(Layer, query, key, value, masks, scaling=0.3)
    by_kernel = packing._by_kernel(query, key, value, row, 0.3)
    torch.testing.assert_close(by_kernel, by_runs)
