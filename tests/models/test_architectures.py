"""Heads that are more than a matrix, adapters, and quantized weights."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from tiny_models import BASE, checkpoint, config, passages, plain_answer, save_adapter, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.fold import After
from raymia.models.causal.model import CausalLM
from raymia.util.errors import InputError

TEXTS = passages(6)


def load(folder, **settings):
    return load_causal_lm(checkpoint(folder, **settings), batch_tokens=1_024)


def assert_is_the_definition(model, texts=TEXTS, tolerance=1e-5):
    for text, answer in zip(texts, model.answer(texts, moments=True), strict=True):
        plain = plain_answer(model.model, model.tokenizer, text, model.max_tokens)
        np.testing.assert_allclose(answer.log_prob, plain.log_prob, rtol=0, atol=tolerance)
        np.testing.assert_allclose(answer.mean_log_prob, plain.mean, rtol=0, atol=tolerance)
        np.testing.assert_allclose(answer.std_log_prob, plain.std, rtol=0, atol=tolerance)


# -------------------------------------------------------------------------- heads


def test_a_config_that_asks_for_bare_tuples_changes_no_answer(tmp_path):
    folder = save_tiny(tmp_path / "tuples", "llama")
    before = load(folder).answer(TEXTS, moments=False)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"return_dict": False}))
    for answer, same in zip(load(folder).answer(TEXTS, moments=False), before, strict=True):
        np.testing.assert_array_equal(answer.log_prob, same.log_prob)


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "falcon", "falcon-alibi", "llama"])
def test_plain_heads_are_computed_in_chunks_and_are_the_definition(tmp_path, kind):
    model = load(save_tiny(tmp_path / kind, kind))
    assert model.head.after == After()
    assert_is_the_definition(model)


@pytest.mark.parametrize("kind", ["gemma2", "cohere", "granite"])
def test_scaled_and_capped_logits_are_the_models_own(tmp_path, kind):
    model = load(save_tiny(tmp_path / kind, kind))
    assert model.head.after not in (None, After()), f"{kind} scales or caps its logits"
    assert_is_the_definition(model)


def test_logits_that_are_capped_but_little_are_the_models_own(tmp_path):
    """tanh caps large logits much and small ones little; a little is still not nothing."""
    model = load(save_tiny(tmp_path / "gemma2", "gemma2", initializer_range=0.07))
    assert_is_the_definition(model)


# ----------------------------------------------------------------------- adapters


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"target_modules": ["q_proj", "v_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"use_dora": True},
    ],
    ids=["default", "with head", "with saved head", "dora"],
)
def test_adapter_answers_as_the_merged_model_does(tmp_path, tiny_llama, lora):
    from peft import PeftModel

    texts = TEXTS[:3]
    adapter = save_adapter(tmp_path / "adapter", tiny_llama, **lora)
    model = load(tiny_llama, adapter=str(adapter))
    weights = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    merged = PeftModel.from_pretrained(weights, adapter).merge_and_unload().eval()
    plain = load(tiny_llama).answer(texts, moments=True)
    for text, answer, other in zip(texts, model.answer(texts, moments=True), plain, strict=True):
        expected = plain_answer(merged, model.tokenizer, text, model.max_tokens)
        np.testing.assert_allclose(answer.log_prob, expected.log_prob, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer.mean_log_prob, expected.mean, rtol=0, atol=1e-5)
        assert np.abs(answer.log_prob - other.log_prob).max() > 0.01, "the adapter did nothing"


def test_lora_keeps_the_chunked_head(tmp_path, tiny_gpt2):
    adapter = save_adapter(tmp_path / "adapter", tiny_gpt2)
    assert load(tiny_gpt2, adapter=str(adapter)).head.after == After()


@pytest.mark.parametrize("method", ["PrefixTuningConfig", "PromptTuningConfig"])
def test_adapters_with_inputs_of_their_own_are_answered_with_them(tmp_path, tiny_gpt2, method):
    import peft

    torch.manual_seed(0)
    weights = AutoModelForCausalLM.from_pretrained(tiny_gpt2, dtype=torch.float32)
    made = getattr(peft, method)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = peft.get_peft_model(weights, made)
    adapted.save_pretrained(tmp_path / "adapter")
    model = load(tiny_gpt2, adapter=str(tmp_path / "adapter"))
    assert model.head.after == After()
    text = "And it came to pass in those days"
    ids = model.encode([text])[0]
    with torch.no_grad():
        logits = adapted.eval()(input_ids=torch.tensor([ids])).logits[0, -len(ids) :]
    expected = logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]
    without = load(tiny_gpt2).answer([text], moments=False)[0].log_prob
    answer = model.answer([text, TEXTS[0]], moments=True)[0]
    assert np.abs(expected.numpy() - without).max() > 0.01, "the adapter did nothing"
    np.testing.assert_allclose(answer.log_prob, expected, rtol=0, atol=1e-5)


def test_adapter_of_another_base_is_refused_with_its_path(tmp_path, tiny_gpt2, tiny_llama):
    adapter = save_adapter(tmp_path / "llama-adapter", tiny_llama)
    with pytest.raises(InputError, match="llama-adapter: this adapter does not fit its base"):
        load(tiny_gpt2, adapter=str(adapter))


def test_adapter_of_a_base_of_another_width_is_refused_with_its_path(tmp_path, tiny_gpt2):
    wider = save_tiny(tmp_path / "wider", "gpt2", n_embd=48)
    adapter = save_adapter(tmp_path / "wide-adapter", wider)
    with pytest.raises(InputError, match="wide-adapter: this adapter does not fit its base"):
        load(tiny_gpt2, adapter=str(adapter))


# ------------------------------------------------------------------- quantization


@pytest.fixture(scope="module", params=["nf4", "fp4", "int8"])
def quantized(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return request.param, load(BASE, quantization=request.param)


def test_quantized_weights_answer_near_the_full_ones_but_not_as_they_do(quantized, base):
    _, model = quantized
    answers, full = (m.answer(TEXTS[:3], moments=True) for m in (model, base))
    for answer, other in zip(answers, full, strict=True):
        assert np.isfinite(answer.log_prob).all()
        assert np.isfinite(answer.std_log_prob).all()
        assert np.abs(answer.log_prob - other.log_prob).max() > 0
        assert abs(answer.log_prob.mean() - other.log_prob.mean()) < 0.3


def test_quantized_answer_does_not_depend_on_batch_mates(quantized):
    _, model = quantized
    together = model.answer(TEXTS[:3], moments=True)
    for text, answer in zip(TEXTS[:3], together, strict=True):
        alone = model.answer([text], moments=True)[0]
        np.testing.assert_allclose(answer.log_prob, alone.log_prob, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_weights_of_4_bits_answer_as_they_do_unpacked(kind, monkeypatch):
    """In float32, also on a CPU on which bitsandbytes rounds to bfloat16 what it multiplies."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    packed = load(BASE, quantization=kind)
    unpacked = load(BASE)
    whole = dict(unpacked.model.named_modules())
    layers = [(n, m) for n, m in packed.model.named_modules() if type(m).__name__ == "Linear4bit"]
    assert layers
    for name, layer in layers:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.float32)
        is_turned = isinstance(whole[name], Conv1D)
        whole[name].weight.data = weight.t().contiguous() if is_turned else weight
    answers, expected = (m.answer(TEXTS[:3], moments=False) for m in (packed, unpacked))
    for answer, other in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer.log_prob, other.log_prob, rtol=0, atol=1e-5)


def test_int8_is_asked_one_text_at_a_time(quantized):
    name, model = quantized
    sizes, forward = [], model._forward

    def counted(ids, *others):
        sizes.append(len(ids))
        return forward(ids, *others)

    model._forward = counted
    try:
        model.answer(TEXTS[:2], moments=False)
    finally:
        del model._forward
    assert (max(sizes) == 1) == (name == "int8")


def test_adapter_on_quantized_weights_changes_the_answer(tmp_path):
    adapter = save_adapter(tmp_path / "adapter", BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = load(BASE, adapter=str(adapter), quantization="nf4").answer(
            TEXTS[:2], moments=False
        )
        plain = load(BASE, quantization="nf4").answer(TEXTS[:2], moments=False)
    for answer, other in zip(adapted, plain, strict=True):
        assert np.isfinite(answer.log_prob).all()
        assert np.abs(answer.log_prob - other.log_prob).max() > 0.01


# ------------------------------------------------------------------- broken weights


def test_weights_that_are_not_finite_spoil_only_the_texts_they_touch():
    model = AutoModelForCausalLM.from_config(config("llama", tie_word_embeddings=False)).eval()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    word = tokenizer(" Darcy")["input_ids"][-1]
    sound = CausalLM(model, tokenizer, batch_tokens=4_096)
    clean = [t for t in passages(30) if word not in tokenizer(t)["input_ids"]][:5]
    before = sound.answer(clean, moments=True)
    with torch.no_grad():
        model.get_input_embeddings().weight[word] = float("nan")
    broken = CausalLM(model, tokenizer, batch_tokens=4_096)
    answers = broken.answer([*clean, "I saw" + tokenizer.decode([word]) + " there"], moments=True)
    assert not np.isfinite(answers[-1].log_prob).all()
    for answer, other in zip(answers[:-1], before, strict=True):
        np.testing.assert_allclose(answer.log_prob, other.log_prob, rtol=0, atol=1e-5)
