"""Attacks that an audit's models make impossible are found before a model is loaded."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import transformers
from edited import edit
from safetensors.torch import load_file, save_file
from small_inputs import audit
from tiny_models import PARAPHRASER, passages, save_adapter

from raymia.inputs.compatibility import identical_models
from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.adapters import another_base
from raymia.util.errors import InputError
from raymia.util.reasons import CAME


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, tiny_gpt2):
    return save_adapter(tmp_path_factory.mktemp("adapter"), tiny_gpt2)


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


def test_adapter_that_names_another_base_is_said_with_both(made, tmp_path, tiny_gpt2, adapter):
    own = tmp_path / "adapter"
    shutil.copytree(adapter, own)

    def noted(named):
        edit(own / "adapter_config.json", base_model_name_or_path=named)
        target = {"name": "one", "model": str(tiny_gpt2), "adapter": str(own)}
        return resolve_inputs(made(targets=[target])).noted

    (line,) = noted("org/continued")
    assert line.startswith("one: its adapter names another base than it is put on")
    assert line.endswith(f"{CAME}org/continued, {tiny_gpt2}")
    assert noted(f"/elsewhere/{tiny_gpt2.name}/") == noted(None) == ()


def test_adapter_that_waits_for_its_tokens_is_said_to(made, tmp_path, tiny_gpt2):
    own = save_adapter(tmp_path / "alora", tiny_gpt2, alora_invocation_tokens=[50, 51])
    target = {"name": "one", "model": str(tiny_gpt2), "adapter": str(own)}
    (line,) = resolve_inputs(made(targets=[target])).noted
    assert line.startswith("one: its adapter is an activated LoRA, which changes what comes after")


def test_targets_that_are_asked_one_text_at_a_time_are_named(made, tiny_gpt2):
    targets = [
        {"name": kind, "model": str(tiny_gpt2), "quantization": kind} for kind in ("int8", "nf4")
    ]
    (line,) = resolve_inputs(made(targets=targets)).noted
    assert line.startswith("int8: asked one text at a time, ")


def test_folder_of_the_hub_is_known_by_its_name(tmp_path, adapter):
    own, snapshot = tmp_path / "adapter", tmp_path / "models--org--lm" / "snapshots" / "1a2b"
    shutil.copytree(adapter, own)
    snapshot.mkdir(parents=True)
    edit(own / "adapter_config.json", base_model_name_or_path="org/lm")
    assert another_base(str(own), str(snapshot)) is None
    (snapshot / "config.json").write_text('{"_name_or_path": "org/renamed"}')
    edit(own / "adapter_config.json", base_model_name_or_path="mirror/renamed")
    assert another_base(str(own), str(snapshot)) is None
    assert another_base(str(own), str(tmp_path)) == "mirror/renamed"


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
    assert text == f"{key}: foo://bucket/folder: cannot be opened: Protocol not known: foo"


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


def test_adapter_whose_product_is_zero_is_said_to_change_nothing(made, tmp_path, tiny_gpt2):
    own = save_adapter(tmp_path / "zero", tiny_gpt2)
    file = own / "adapter_model.safetensors"
    tensors = load_file(file)
    target = {"name": "one", "model": str(tiny_gpt2), "adapter": str(own)}
    assert resolve_inputs(made(targets=[target])).noted == ()
    save_file({n: t * 0 if "lora_B" in n else t for n, t in tensors.items()}, file)
    (line,) = resolve_inputs(made(targets=[target])).noted
    assert line.startswith("one: its adapter changes nothing: all that it adds is zero")


def test_adapter_of_embeddings_before_its_first_step_is_said_to_change_nothing(
    made, tmp_path, tiny_gpt2
):
    """PEFT starts the first matrix of an embedding with zeros, and not the second."""
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_gpt2)
    config = peft.LoraConfig(r=2, target_modules=["wte", "c_attn"], task_type="CAUSAL_LM")
    peft.get_peft_model(base, config).save_pretrained(tmp_path / "begun")
    target = {"name": "one", "model": str(tiny_gpt2), "adapter": str(tmp_path / "begun")}
    (line,) = resolve_inputs(made(targets=[target])).noted
    assert line.startswith("one: its adapter changes nothing: all that it adds is zero")


@pytest.mark.parametrize("usable", [19, 20])
def test_a_population_that_is_too_small_leaves_out_what_is_fitted_on_it(made, tmp_path, usable):
    file = tmp_path / "population.jsonl"
    file.write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in passages(60)[40:][:usable])
    )
    records = {**made().records.model_dump(), "population": str(file)}
    few = {label for _, label in resolve_inputs(made(records=records)).left_out}
    assert ("quantile@base" in few, "rmia@base" in few) == (usable < 20, False)
    named = made(records=records, attacks=["loss", "quantile"])
    if usable < 20:
        said = "it needs 20 records of the population, and 19 are usable"
        assert all(said in text for text in refused(named))
    else:
        assert not resolve_inputs(named).left_out
