"""Tokenizer traps: with BOS and without, padding that is the end of text, any byte a text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import checkpoint, fingerprint, passages, save_tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Whitespace
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from raymia.models.causal.facts import tokenizer_hash
from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.tokenizer_files import read_tokens, regex_is_fixed
from raymia.models.tokenizers import TokenizerSource
from raymia.util.once import Once

TEXT = "And it came to pass in those days"


def load(folder):
    return load_causal_lm(checkpoint(folder), batch_tokens=1_024)


def with_bos(folder):
    """Let a folder's tokenizer put token 0 before each text, as that of LLaMA does its BOS."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    token = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(0)
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": token, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {token: {"id": token, "ids": [0], "tokens": [token]}},
    }
    path.write_text(json.dumps(content))
    return folder


def log_probs(model, ids):
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([ids])).logits[0]
    return logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]


def test_a_tokenizer_that_has_no_token_for_unknown_words_is_loaded(tmp_path):
    words = Tokenizer(WordLevel({"days": 0, "nights": 1}))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(tmp_path)
    assert TokenizerSource(str(tmp_path)).load()("nights")["input_ids"] == [1]


def test_with_a_bos_every_token_of_the_text_is_scored(tmp_path):
    model = load(with_bos(save_tiny(tmp_path / "model")))
    ids = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    answer = model.answer([TEXT], moments=False)[0]
    assert answer.token_ids.tolist() == ids
    np.testing.assert_allclose(answer.log_prob, log_probs(model, [0, *ids]), rtol=0, atol=1e-5)


def test_without_a_bos_none_is_added_and_the_first_token_is_not_scored(tiny_gpt2):
    model = load(tiny_gpt2)
    ids = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    answer = model.answer([TEXT], moments=False)[0]
    assert answer.token_ids.tolist() == ids[1:]
    np.testing.assert_allclose(answer.log_prob, log_probs(model, ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["eos", None])
def test_padding_of_the_tokenizer_is_nothing_to_us(tiny_gpt2, pad, side):
    """Padding that is the end-of-text token, or none, or on the left, changes no answer."""
    model = load(tiny_gpt2)
    texts = [*passages(3), "Yes, sir."]
    expected = model.answer(texts, moments=True)
    model.tokenizer.pad_token = model.tokenizer.eos_token if pad == "eos" else None
    model.tokenizer.padding_side = side
    for answer, other in zip(model.answer(texts, moments=True), expected, strict=True):
        assert answer.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_array_equal(answer.log_prob, other.log_prob)


def test_end_of_text_that_a_text_spells_out_is_scored_where_padding_is_the_same_token(tiny_gpt2):
    model = load(tiny_gpt2)
    model.tokenizer.pad_token = model.tokenizer.eos_token
    end = model.tokenizer.eos_token
    short = f"Yes{end}sir{end}"
    answer = model.answer([passages(1)[0], short], moments=False)[1]
    ids = model.encode([short])[0]
    assert ids.count(model.tokenizer.eos_token_id) == 2
    assert answer.token_ids.tolist() == ids[1:]
    np.testing.assert_allclose(answer.log_prob, log_probs(model, ids), rtol=0, atol=1e-5)


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_survives_its_tokens(base, text):
    """Bytes are the alphabet: no text has an unknown token, or loses a character."""
    ids = base.encode([text])[0]
    assert base.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    answer = base.answer([text], moments=False)[0]
    assert answer.token_ids.tolist() == ids[1:][: len(answer.token_ids)]


def test_character_of_several_tokens_is_scored_token_by_token(base):
    text = "a 🦜 b"
    ids = base.encode([text])[0]
    assert len(ids) > len(text)
    assert len(base.answer([text], moments=False)[0].log_prob) == len(ids) - 1


def saved_by(folder, version, model_type="mistral", **settings):
    """Let a folder's config say what kind of model it is, and by which transformers it was written;
    without a version where that is None."""
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    content = json.loads(config.read_text()) | {"model_type": model_type}
    content["transformers_version"] = version
    config.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | settings))
    return folder


def hashes(folder):
    tokens = read_tokens(folder, "model").tokenization
    return fingerprint(checkpoint(folder)), tokenizer_hash(folder, None, Once()), tokens


VERSIONS = [None, "", "4.57.1", "4", "5.0.0.dev0", "5.0.0rc1", "5.0.0", "5.0.1", "5.24.0", "10.0.0"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("model_type", ["mistral", "pixtral", "llama", None])
def test_the_regex_of_a_mistral_tokenizer_is_taken_for_fixed_where_transformers_fixes_it(
    tmp_path, version, model_type
):
    folder = saved_by(save_tiny(tmp_path), version, model_type, fix_mistral_regex=True)
    tokenizer = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = Sequence([Whitespace()])
    patched = TokenizersBackend._patch_mistral_regex(
        tokenizer, str(folder), is_local=True, fix_mistral_regex=True
    )
    assert bool(regex_is_fixed(folder, Once())) == ("Split" in str(patched.pre_tokenizer))


def test_what_wrote_a_config_is_in_the_keys_of_a_mistral_tokenizer_that_it_changes(tmp_path):
    folder = save_tiny(tmp_path)
    plain = hashes(saved_by(folder, "4.57.1"))
    assert hashes(saved_by(folder, "5.24.0")) == plain
    new = hashes(saved_by(folder, "5.24.0", fix_mistral_regex=True))
    assert hashes(saved_by(folder, "5.9.0")) == new
    old = hashes(saved_by(folder, "4.57.1"))
    assert not {*old} & {*new}
    assert hashes(saved_by(folder, None)) == old
