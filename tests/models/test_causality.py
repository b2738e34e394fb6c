"""A model that sees the tokens that it should predict is refused when it is loaded."""

from __future__ import annotations

import pytest
import torch
import transformers
from tiny_models import BASE, checkpoint, passages, save_adapter, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from raymia.models.causal.causality import changes_beside_others, refuse_looking_ahead
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.util.errors import InputError

SMALL = {"vocab_size": 2048, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 64, "initializer_range": 0.3}  # fmt: skip
ENCODERS = {
    "BERT": transformers.BertConfig(**SMALL),
    "RoBERTa": transformers.RobertaConfig(**SMALL),
    "ELECTRA": transformers.ElectraConfig(**SMALL),
    "EmbeddingGemma": transformers.Gemma3TextConfig(
        **SMALL, num_key_value_heads=1, head_dim=16, use_bidirectional_attention=True
    ),
}


def asked(config, dtype=torch.float32):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    return CausalLM(model, AutoTokenizer.from_pretrained(BASE), batch_tokens=64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ENCODERS)
def test_model_that_looks_ahead_is_refused_with_how_much(kind, dtype):
    model = asked(ENCODERS[kind], dtype)
    with pytest.raises(InputError, match="here: this is no causal language model: with another"):
        refuse_looking_ahead(model, "here", is_quantized=False)


def broken(error, when):
    """A model that fails on some batches."""
    model = asked(transformers.LlamaConfig(**SMALL, num_key_value_heads=2))
    hidden = model.head.hidden

    def failing(mask, **inputs):
        if when(mask):
            raise error
        return hidden(mask, **inputs)

    model.head.hidden = failing
    return model


@pytest.mark.parametrize("kind", [RuntimeError, TypeError, ValueError])
def test_model_that_cannot_be_tried_is_no_proven_one(kind):
    model = broken(kind("shapes do not go together\nat a"), lambda _: True)
    with pytest.raises(InputError, match=r"here: 12 tokens .* \(shapes do not go together\)"):
        refuse_looking_ahead(model, "here", is_quantized=False)


@pytest.mark.parametrize("words", ["CUDA error: device-side assert", "DefaultCPUAllocator: can't "
                                   "allocate memory"])  # fmt: skip
def test_a_device_that_fails_is_not_blamed_on_the_checkpoint(words):
    model = broken(RuntimeError(words), lambda _: True)
    with pytest.raises(RuntimeError, match=words[:10]):
        refuse_looking_ahead(model, "here", is_quantized=False)
    with pytest.raises(RuntimeError, match=words[:10]):
        changes_beside_others(model, is_quantized=False)


def test_model_that_takes_no_padding_is_asked_one_text_at_a_time():
    model = broken(RuntimeError("no masks"), lambda mask: not mask.all())
    refuse_looking_ahead(model, "here", is_quantized=False)
    assert changes_beside_others(model, is_quantized=False)
    assert not changes_beside_others(broken(ValueError(), lambda _: False), is_quantized=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "falcon-alibi", "gemma2", "cohere"])
def test_causal_models_are_loaded_in_any_precision(tmp_path, kind, dtype):
    folder = save_tiny(tmp_path, kind)
    model = load_causal_lm(checkpoint(folder, dtype=dtype), batch_tokens=64)
    assert (model.max_tokens, model.one_by_one) == (128, False)


def test_model_that_padding_changes_is_asked_one_text_at_a_time(tmp_path):
    torch.manual_seed(0)
    config = transformers.ProphetNetConfig(
        vocab_size=2048, hidden_size=32, num_decoder_layers=2, num_decoder_attention_heads=2,
        decoder_ffn_dim=64, max_position_embeddings=128, init_std=0.3, is_decoder=True,
        is_encoder_decoder=False, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path)
    model = load_causal_lm(checkpoint(tmp_path), batch_tokens=4_096)
    assert model.one_by_one
    texts = [" ".join(text.split()[: 10 * n]) for n, text in enumerate(passages(3), start=1)]
    for text, answer in zip(texts, model.answer(texts, moments=False), strict=True):
        (alone,) = model.answer([text], moments=False)
        assert (answer.log_prob == alone.log_prob).all()


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_models_are_no_less_causal(quantization):
    assert load_causal_lm(checkpoint(BASE, quantization=quantization), batch_tokens=64)


def test_checkpoint_that_looks_ahead_is_refused_by_its_folder(tmp_path):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(ENCODERS["EmbeddingGemma"]).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "base")
    adapter = save_adapter(tmp_path / "adapter", tmp_path / "base")
    for settings, label in (({}, "base"), ({"adapter": str(adapter)}, "adapter")):
        with pytest.raises(InputError, match=f"/{label}: this is no causal language model"):
            load_causal_lm(checkpoint(tmp_path / "base", **settings), batch_tokens=64)
