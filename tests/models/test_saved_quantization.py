"""Weights that were saved quantized are read with their scales, or refused."""

from __future__ import annotations

import re
import shutil
import warnings

import numpy as np
import pytest
import torch
from quantized_models import save_bitsandbytes, save_block_fp8, set_quantization
from safetensors.torch import load_file, save_file
from small_image_models import save_pipeline
from small_inputs import audit
from tiny_models import BASE, PARAPHRASER, fingerprint, passages, plain_answer, save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2PreTrainedModel

from raymia.modalities.resolve import resolve_inputs
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.image_source import resolve_image_model
from raymia.models.paraphrasers.resolver import resolve_paraphraser
from raymia.models.saved_quantization import refuse_unscaled, rounds_inputs
from raymia.models.source import model_weights_in
from raymia.spec import MaskFillNeighbors, ModelSpec, PoolSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

TEXTS = passages(3)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def fp8(tmp_path_factory):
    return save_block_fp8(tmp_path_factory.mktemp("fp8"))


def resolved(folder, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_causal_lm(spec, "targets[0].model", on_gpu=False)


def refusal(resolve, *args, **settings):
    with pytest.raises(InputError) as caught:
        resolve(*args, **settings)
    (problem,) = caught.value.problems
    return problem


def assert_as_transformers(folder, kind):
    found = resolved(folder)
    assert found.facts.saved_as == kind
    assert f"saved as {kind}" in found.describe()
    model = found.loader(PoolSpec()).load()
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for part in plain.modules():  # else some CPUs answer in bfloat16
        part.support_avx512bf16_for_cpu = False
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, answer in zip(TEXTS, model.answer(TEXTS, moments=False), strict=True):
        expected = plain_answer(plain, tokenizer, text).log_prob
        np.testing.assert_allclose(answer.log_prob, expected, rtol=0, atol=1e-5)
    return model


def test_fp8_with_a_scale_for_each_tile_is_read_with_its_scales(fp8):
    assert_as_transformers(fp8, "fp8")


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_what_bitsandbytes_saved_is_read_as_it_is(tmp_path, kind):
    model = assert_as_transformers(save_bitsandbytes(tmp_path, kind), kind)
    assert model.one_by_one == (kind == "int8")


def test_quantized_weights_have_no_gradient_and_are_not_fine_tuned(tmp_path, fp8):
    assert resolved(fp8).capabilities.why_not({"gradients"}) == [
        "fp8 weights have no gradient; audit the checkpoint unquantized"
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"text": "{n}{" and so on" * 9}"}}\n' for n in range(4)))
    references = {"base": {"model": str(fp8)},
                  "own": {"kind": "self_prompt", "prompts": str(prompts)}}  # fmt: skip
    spec = audit(tmp_path / "a", BASE, PARAPHRASER, references=references, attacks=["ratio"])
    problem = refusal(resolve_inputs, spec)
    assert problem.startswith("references.own.base: 'base' was saved quantized (fp8)")


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        ({}, r"references\.own\.base: 'base' was saved quantized \(nf4\).*say `fine_tune: "),
        ({"lora": {"target_modules": ["nowhere"]}},
         r"references\.own\.fine_tune\.lora\.target_modules: the model has no layer nowhere"),
        ({"lora": {}, "gradient_checkpointing": True}, None),
    ],
)  # fmt: skip
def test_an_adapter_alone_is_trained_on_weights_in_4_bits(tmp_path, tuned, message):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"text": "{n}{" and so on" * 9}"}}\n' for n in range(4)))
    own = {"kind": "self_prompt", "prompts": str(prompts), "fine_tune": tuned}
    base = save_bitsandbytes(tmp_path / "nf4", "nf4")
    references = {"base": {"model": str(base)}, "own": own}
    spec = audit(tmp_path / "a", BASE, PARAPHRASER, references=references, attacks=["ratio"])
    if message is None:
        assert resolve_inputs(spec).spec.references["own"].fine_tune.lora.r == 64
    else:
        assert re.search(message, refusal(resolve_inputs, spec))


def test_layers_that_cannot_be_recomputed_are_told_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(GPT2PreTrainedModel, "supports_gradient_checkpointing", False)
    own = {"kind": "self_prompt", "prompts": "none", "fine_tune": {"gradient_checkpointing": True}}
    references = {"base": {"model": str(BASE)}, "own": own}
    spec = audit(tmp_path / "a", BASE, PARAPHRASER, references=references, attacks=["ratio"])
    assert refusal(resolve_inputs, spec).startswith(
        "references.own.fine_tune.gradient_checkpointing: transformers cannot recompute the layers "
        "of a gpt2; leave"
    )


def test_answers_without_scales_are_not_taken_for_answers_with_them(tmp_path, fp8):
    """Evidence that was stored while scales were dropped has a key of its own."""
    now = resolved(fp8)
    before = now.__class__(**{**vars(now), "facts": resolved(save_tiny(tmp_path)).facts})
    assert fingerprint(before) != now.fingerprint


@pytest.mark.parametrize("asked", ["nf4", "int8"])
def test_quantized_weights_are_not_quantized_again(fp8, asked):
    problem = refusal(resolved, fp8, quantization=asked)
    assert problem.startswith("targets[0].quantization: ")
    assert f"was saved quantized (fp8), and is read as it is; leave out '{asked}'" in problem


@pytest.mark.parametrize(
    ("method", "package"),
    [("gptq", "optimum"), ("awq", "gptqmodel"), ("compressed-tensors", "compressed-tensors"),
     ("torchao", "torchao")],
)  # fmt: skip
def test_package_that_reads_a_method_is_named_where_it_is_missing(tmp_path, method, package):
    set_quantization(save_tiny(tmp_path), {"quant_method": method})
    problem = refusal(resolved, tmp_path)
    assert problem.startswith(f"targets[0].model: {package} is not installed here")
    assert f"weights that were saved with {method} need it" in problem


def save_packed(folder, method, packed, scale, kept=True):
    """A tiny model of which one layer's weights are packed, as a method names its tensors."""
    save_tiny(folder, "llama")
    tensors = load_file(folder / "model.safetensors")
    layer = "model.layers.0.mlp.up_proj"
    own = tensors.pop(f"{layer}.weight")
    tensors[f"{layer}.{packed}"] = own.to(torch.int32 if packed != "weight" else torch.int8)
    tensors[f"{layer}.qzeros"] = torch.zeros(1, 8, dtype=torch.int32)
    if kept:
        tensors[f"{layer}.{scale}"] = torch.ones(1, 64)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    set_quantization(folder, {"quant_method": method})
    return folder


@pytest.mark.parametrize(
    ("method", "packed", "scale"),
    [
        ("gptq", "qweight", "scales"),
        ("awq", "qweight", "scales"),
        ("compressed-tensors", "weight_packed", "weight_scale"),
        ("compressed-tensors", "weight", "weight_scale"),
        ("torchao", "weight_qdata", "weight_scale"),
        ("torchao", "_weight_qdata", "_weight_scale"),
        ("bitsandbytes", "weight", "SCB"),
        ("mxfp4", "gate_blocks", "gate_scales"),
    ],
)
def test_packed_weights_without_their_scale_are_refused_whatever_packages_are_here(
    tmp_path, method, packed, scale
):
    bare = save_packed(tmp_path / "bare", method, packed, scale, kept=False)
    problem = refusal(resolved, bare)
    assert "1 of its tensors are quantized and have no scale beside them" in problem
    assert f"mlp.up_proj.{packed}" in problem
    whole = save_packed(tmp_path / "whole", method, packed, scale)
    refuse_unscaled(model_weights_in(whole, "here", Once()), whole, "here")


def test_a_scale_of_inputs_or_of_another_weight_is_none(tmp_path):
    for packed, scale in (("weight", "input_scale"), ("up_blocks", "down_scales")):
        folder = save_packed(tmp_path / packed, "compressed-tensors", packed, scale)
        assert "have no scale beside them" in refusal(resolved, folder)


@pytest.mark.parametrize("method", ["modelopt", "bitnet", None])
def test_method_that_nobody_reads_is_refused(tmp_path, method):
    """transformers skips those that it does not know, and reads integers as weights."""
    set_quantization(save_tiny(tmp_path), {"quant_method": method, "bits": 4})
    problem = refusal(resolved, tmp_path)
    assert f"a quantization_config with the quant_method {method!r}" in problem


def test_quantized_paraphraser_needs_the_same_packages(tmp_path):
    shutil.copytree(PARAPHRASER, tmp_path / "t5")
    set_quantization(tmp_path / "t5", {"quant_method": "gptq"})
    spec = MaskFillNeighbors(model=str(tmp_path / "t5"))
    assert "optimum is not installed here" in refusal(resolve_paraphraser, spec, "neighbors.model")


# --------------------------------------------------------------------------- images


def image_model(folder, **settings):
    spec = ModelSpec(model=str(folder), **settings)
    return resolve_image_model(spec, "targets[0].model", on_gpu=True)


def test_network_that_was_saved_quantized_is_neither_quantized_again_nor_trained(tmp_path):
    save_pipeline("ddpm", tmp_path)
    set_quantization(
        tmp_path / "unet",
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    )
    found = image_model(tmp_path)
    assert found.network.saved_as == "nf4"
    assert found.capabilities.why_not({"generation"}) == [
        "nf4 weights cannot be trained; audit the model unquantized"
    ]
    assert "was saved quantized (nf4)" in refusal(image_model, tmp_path, quantization="int8")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_part_of_a_pipeline_in_a_method_that_nobody_reads_is_refused(tmp_path, part):
    save_pipeline("stable", tmp_path)
    set_quantization(tmp_path / part, {"quant_method": "modelopt"})
    problem = refusal(image_model, tmp_path)
    assert f"{part}/config.json has a quantization_config with the quant_method" in problem


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_model_of_which_nothing_would_be_quantized_is_refused(tmp_path, quantization):
    """Falcon's layers are a class of their own, which bitsandbytes leaves as they are."""
    folder = save_tiny(tmp_path / "falcon", "falcon")
    assert resolved(folder)
    said = refusal(resolved, folder, quantization=quantization)
    assert "targets[0].model: bitsandbytes quantizes no layer of a falcon" in said
    for kind in ("gpt2", "llama"):
        assert resolved(save_tiny(tmp_path / kind, kind), quantization=quantization)


def test_what_was_not_quantized_at_load_is_refused_too(tmp_path):
    from raymia.models.causal.family import quantization_options
    from raymia.models.whole_weights import load_whole

    options = quantization_options("nf4", torch.float32)
    with pytest.raises(InputError, match="quantized no layer"):
        load_whole(AutoModelForCausalLM, save_tiny(tmp_path / "falcon", "falcon"), **options)
    model = load_whole(AutoModelForCausalLM, save_tiny(tmp_path / "llama", "llama"), **options)
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear4bit"


WEIGHTS = {"num_bits": 8, "type": "int", "strategy": "channel"}
INPUTS = {"num_bits": 8, "strategy": "token", "dynamic": True}


@pytest.mark.parametrize(
    ("settings", "rounds"),
    [
        (None, False),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, False),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, True),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, False),
        (
            {"config_groups": {"g": {"weights": WEIGHTS, "input_activations": None}}},
            False,
        ),
        (
            {"config_groups": {"g": {"weights": WEIGHTS, "input_activations": INPUTS}}},
            True,
        ),
        (
            {"config_groups": {"g": {"input_activations": {**INPUTS, "type": "float"}}}},
            False,
        ),
        ({"quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}}}, False),
        ({"quant_type": {"default": {"_type": "Int8DynamicActivationInt8WeightConfig"}}}, True),
    ],
)
def test_models_that_round_what_enters_a_layer_to_whole_numbers_are_known(settings, rounds):
    assert rounds_inputs(settings) == rounds
