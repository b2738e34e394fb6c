"""Attacks that an audit's models make impossible are found before a model is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
from small_inputs import audit
from tiny_models import PARAPHRASER

from raymia.inputs.compatibility import identical_models
from raymia.modalities.resolve import resolve_inputs
from raymia.util.errors import InputError


@pytest.fixture
def other_tokenizer(tmp_path, tiny_gpt2):
    """The same model with a tokenizer that cuts texts otherwise."""
    folder = tmp_path / "other tokenizer"
    shutil.copytree(tiny_gpt2, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-50]
    file.write_text(json.dumps(content))
    return folder


@pytest.fixture
def made(tmp_path, tiny_gpt2):
    return lambda **changes: audit(tmp_path / "audit", tiny_gpt2, PARAPHRASER, **changes)


def refused(spec):
    with pytest.raises(InputError) as caught:
        resolve_inputs(spec)
    return caught.value.problems


def test_other_tokenizer_leaves_out_what_compares_token_by_token(made, tiny_gpt2, other_tokenizer):
    references = {"mine": {"model": str(tiny_gpt2)}, "theirs": {"model": str(other_tokenizer)}}
    inputs = resolve_inputs(made(references=references))
    assert {label for _, label in inputs.left_out} == {"ez@theirs", "wbc@theirs"}
    (line,) = inputs.left_out_lines()
    assert "the tokenizer of 'theirs' cuts texts otherwise than the target's" in line
    run = {named.label for named in inputs.attacks_on("one")}
    assert {"ez@mine", "difference@theirs", "ratio@theirs"} <= run
    assert not {"ez@theirs", "wbc@theirs"} & run


def test_attack_that_is_named_and_impossible_is_refused(made, other_tokenizer):
    references = {"theirs": {"model": str(other_tokenizer)}}
    (text,) = refused(made(references=references, attacks=["loss", "ez@theirs"]))
    assert text.startswith("attacks: 'ez@theirs' cannot be run on 'one'")


def test_self_prompt_reference_has_its_bases_tokenizer(made, other_tokenizer):
    prompted = made().references["self_prompt"].model_dump()
    references = {"base": {"model": str(other_tokenizer)}, "self_prompt": prompted}
    inputs = resolve_inputs(made(references=references))
    assert ("one", "ez@self_prompt") in inputs.left_out


def test_added_pad_token_is_no_other_tokenizer(made, tmp_path, tiny_gpt2):
    from transformers import AutoTokenizer

    folder = tmp_path / "padded"
    shutil.copytree(tiny_gpt2, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    assert not resolve_inputs(made(references={"padded": {"model": str(folder)}})).left_out


def test_corpus_is_looked_at_before_models_are_asked(made, tmp_path):
    (text,) = refused(made(corpus={"files": str(tmp_path / "gone.jsonl")}))
    assert "gone.jsonl: no such file" in text


def test_chat_template_is_no_other_tokenizer(made, tmp_path, tiny_gpt2):
    folder = tmp_path / "chat"
    shutil.copytree(tiny_gpt2, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "x"}))
    assert not resolve_inputs(made(references={"chat": {"model": str(folder)}})).left_out


def test_quantized_weights_have_no_gradient(made, tiny_gpt2):
    targets = [{"name": "q", "model": str(tiny_gpt2), "quantization": "int8"}]
    (text,) = refused(made(targets=targets, attacks=["grad_norm"]))
    assert "int8 weights have no gradient" in text


def test_reference_that_is_the_target_is_said(made, tiny_gpt2):
    inputs = resolve_inputs(made(references={"same": {"model": str(tiny_gpt2)}}))
    (line,) = identical_models(inputs)
    assert line.startswith("reference 'same' is the same model as target 'one'")


# ------------------------------------------------------------- what is refused early


@pytest.mark.parametrize("key", ["output", "store"])
def test_folder_under_a_file_is_refused_with_its_key(made, tmp_path, key):
    (tmp_path / "file").write_text("x")
    for url in (tmp_path / "file", tmp_path / "file" / "folder"):
        (text,) = refused(made(**{key: str(url)}))
        assert text.startswith(f"{key}: {url} cannot be a folder, because")


@pytest.mark.parametrize("key", ["output", "store"])
def test_url_of_an_unknown_protocol_is_refused_with_its_key(made, key):
    (text,) = refused(made(**{key: "foo://bucket/folder"}))
    assert text.startswith(f"{key}: foo://bucket/folder is no folder")


def test_checking_folders_makes_none(made, tmp_path):
    resolve_inputs(made(output=str(tmp_path / "a" / "b"), store=str(tmp_path / "c" / "d")))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "c").exists()


def test_other_kind_of_model_is_refused_before_it_is_loaded(made, tiny_gpt2):
    (text,) = refused(made(targets=[{"name": "t5", "model": str(PARAPHRASER)}]))
    assert "is a t5 model, not a causal language model" in text
    (text,) = refused(made(neighbors={"model": str(tiny_gpt2)}))
    assert text.startswith("neighbors.model: ")
    assert "is a gpt2 model, not an encoder-decoder" in text


def test_weights_that_are_cut_off_are_refused_before_they_are_loaded(made, tmp_path, tiny_gpt2):
    folder = tmp_path / "cut"
    shutil.copytree(tiny_gpt2, folder)
    file = folder / "model.safetensors"
    for content in (file.read_bytes()[:-7], file.read_bytes()[:100], b""):
        file.write_bytes(content)
        (text,) = refused(made(targets=[{"name": "cut", "model": str(folder)}]))
        assert "is not a whole safetensors file" in text
