"""A quantized checkpoint is compared with its config, and its scales with its weights, before it is
loaded."""

from __future__ import annotations

import shutil

import pytest
import torch
from edited import edit
from quantized_models import save_bitsandbytes, save_block_fp8, set_quantization
from safetensors.torch import load_file, save_file
from small_image_models import save_pipeline
from tiny_models import save_tiny

from raymia.models.causal.facts import LOADS
from raymia.models.causal.resolver import resolve_causal_lm
from raymia.models.fit import Described, check_fit, read_transformers_config
from raymia.models.image_source import resolve_image_model
from raymia.models.packed_weights import as_unpacked, refuse_other_scales
from raymia.models.source import config_hash, model_weights_in
from raymia.spec import ModelSpec
from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError
from raymia.util.once import Once

WHERE = "targets[0].model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    return {
        "fp8": save_block_fp8(folder / "fp8"),
        "nf4": save_bitsandbytes(folder / "nf4", "nf4"),
        "int8": save_bitsandbytes(folder / "int8", "int8"),
    }


def refusal(folder, resolve=resolve_causal_lm, on_gpu=False):
    with pytest.raises(InputError) as caught:
        resolve(ModelSpec(model=str(folder)), WHERE, on_gpu=on_gpu)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{WHERE}: {folder}: ")
    return problem


def with_tensors(folder, change, name="model.safetensors"):
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return folder


def first_of(tensors, part):
    return next(name for name in sorted(tensors) if part in name)


@pytest.mark.parametrize(
    ("method", "key", "value", "words"),
    [
        ("fp8", "weight_block_size", "x", "weight_block_size must be"),
        ("fp8", "weight_block_size", [0, 0], "weight_block_size must be"),
        ("fp8", "activation_scheme", "none", "scheme none not supported"),
        ("fp8", "modules_to_not_convert", 7, "not iterable"),
        ("nf4", "bnb_4bit_compute_dtype", "foo", "no attribute 'foo'"),
        ("nf4", "bnb_4bit_quant_storage", "foo", "bnb_4bit_quant_storage"),
        ("nf4", "llm_int8_skip_modules", 7, "llm_int8_skip_modules"),
        ("nf4", "load_in_8bit", True, "only one can be used"),
        ("int8", "llm_int8_threshold", "x", "llm_int8_threshold"),
    ],
)
def test_settings_that_no_reader_takes_are_refused_with_its_reason(
    tmp_path, saved, method, key, value, words
):
    folder = shutil.copytree(saved[method], tmp_path / "model")
    settings = read_transformers_config(folder, where=WHERE).quantization_config
    set_quantization(folder, {**settings, key: value})
    said = refusal(folder)
    assert "can be built from what its config.json describes" in said
    assert words in said


@pytest.mark.parametrize("method", ["fp8", "nf4", "int8"])
@pytest.mark.parametrize(
    ("layers", "words"), [(1, "has no place"), (9, "lack"), (None, "lack 1 of the tensors")]
)
def test_what_fits_no_quantized_model_is_refused_by_name(tmp_path, saved, method, layers, words):
    folder = shutil.copytree(saved[method], tmp_path / "model")
    norm = ".input_layernorm.weight" if method == "fp8" else "h.0.ln_1.bias"
    if layers is None:
        with_tensors(folder, lambda tensors: tensors.pop(first_of(tensors, norm)))
        assert norm in refusal(folder)
    else:
        edit(folder / "config.json", num_hidden_layers=layers)
    assert words in refusal(folder)


def test_packed_weights_of_another_size_are_refused(tmp_path, saved):
    folder = shutil.copytree(saved["nf4"], tmp_path / "model")
    edit(folder / "config.json", n_inner=1024)
    assert "c_fc.weight is 32768 x 1 and should be 128 x 1024" in refusal(folder)


def halve(part):
    def change(tensors):
        name = first_of(tensors, part)
        tensors[name] = tensors[name][: len(tensors[name]) // 2].clone()

    return change


def drop(part):
    return lambda tensors: tensors.pop(first_of(tensors, part))


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("fp8", halve("up_proj.weight_scale_inv"), "scale_inv is 2 x 2 and should be 4 x 2"),
        ("nf4", halve("c_fc.weight.absmax"), "absmax has 512 numbers for 65,536 weights"),
        ("nf4", halve("weight.quant_map"), "quant_map is 8 and should be 16"),
        ("nf4", drop("weight.quant_map"), "quant_map is missing and should be 16"),
        ("nf4", drop("weight.quant_state"), "quant_state.bitsandbytes__nf4 is missing"),
        ("int8", halve(".SCB"), "SCB is 192 and should be 384"),
    ],
)
def test_scales_of_another_size_than_the_weights_are_refused(
    tmp_path, saved, method, change, words
):
    """bitsandbytes reads beyond their end, and tiles are taken for larger ones."""
    folder = with_tensors(shutil.copytree(saved[method], tmp_path / "model"), change)
    said = refusal(folder)
    assert "1 of the tensors that its quantized weights are read by do not fit these" in said
    assert words in said


def test_scales_of_scales_are_looked_at_too():
    whole = {
        "a.weight": TensorHeader("U8", (24_576, 1)),
        "a.weight.absmax": TensorHeader("U8", (768,)),
        "a.weight.quant_map": TensorHeader("F32", (16,)),
        "a.weight.nested_absmax": TensorHeader("F32", (3,)),
        "a.weight.nested_quant_map": TensorHeader("F32", (256,)),
        "a.weight.quant_state.bitsandbytes__nf4": TensorHeader("U8", (169,)),
    }
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    refuse_other_scales(whole, settings, "model", WHERE)
    for name, count in (("nested_absmax", 2), ("nested_quant_map", 255)):
        damaged = {**whole, f"a.weight.{name}": TensorHeader("F32", (count,))}
        with pytest.raises(InputError, match=f"a.weight.{name} is {count} and should be"):
            refuse_other_scales(damaged, settings, "model", WHERE)


PACKED = {
    "gptq": {
        "qweight": ("I32", (4, 64)), "scales": ("F16", (1, 64)),
        "qzeros": ("I32", (1, 8)), "g_idx": ("I32", (32,)),
    },
    "awq": {"qweight": ("I32", (32, 8)), "scales": ("F16", (1, 64)), "qzeros": ("I32", (1, 8))},
}  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "beside"),
    [
        ("layer.weight_packed", ("layer.weight_scale", "layer.weight_shape")),
        ("layer._weight_qdata", ("layer._weight_scale", "layer._weight_zero_point")),
        ("layer.qweight", ("layer.scales", "layer.qzeros", "layer.g_idx")),
        ("layer.weight", ("layer.weight.absmax", "layer.weight.quant_state.bitsandbytes__fp4")),
    ],
)
def test_packed_layer_is_its_weight_and_its_bias(weight, beside):
    tensors = dict.fromkeys((weight, *beside), TensorHeader("I8", (4, 2)))
    tensors |= dict.fromkeys(("layer.bias", "other.weight"), TensorHeader("F32", (4,)))
    found, numbers = as_unpacked(tensors)
    assert {*found} == {"layer.weight", "layer.bias", "other.weight"}
    assert {*numbers} == {"layer.weight"}


def packed(folder, method, lost=None):
    """A tiny Llama whose `up_proj` a method has packed, as it is described."""
    save_tiny(folder, "llama")
    set_quantization(folder, {"quant_method": method, "bits": 4, "group_size": 32})
    tensors = model_weights_in(folder, WHERE, Once())
    for layer in [name for name in tensors if name.endswith("up_proj.weight")]:
        del tensors[layer]
        for name, (dtype, shape) in PACKED[method].items():
            tensors[f"{layer.removesuffix('weight')}{name}"] = TensorHeader(dtype, shape)
    found = {name: tensor for name, tensor in tensors.items() if lost is None or lost not in name}
    config = read_transformers_config(folder, where=WHERE)
    return Described(LOADS, config_hash(folder, Once()), frozenset(found.items()), config)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_what_is_read_by_packages_that_are_not_here_is_compared_by_its_names(tmp_path, method):
    check_fit(packed(tmp_path / "whole", method), tmp_path, WHERE, Once())
    for lost in ("layers.1.mlp.up_proj", "layers.0.input_layernorm"):
        described = packed(tmp_path / lost, method, lost)
        with pytest.raises(InputError, match=rf"lack 1 of the tensors .*{lost}\.weight"):
            check_fit(described, tmp_path, WHERE, Once())


def test_quantized_network_of_images_that_lacks_a_tensor_is_refused(tmp_path):
    save_pipeline("ddpm", tmp_path)
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    set_quantization(tmp_path / "unet", settings)
    resolve_image_model(ModelSpec(model=str(tmp_path)), WHERE, on_gpu=True)
    name = "diffusion_pytorch_model.safetensors"

    def pack(tensors):
        weight = tensors["time_embedding.linear_1.weight"]
        tensors["time_embedding.linear_1.weight"] = weight.to(torch.int8)
        tensors["time_embedding.linear_1.SCB"] = torch.ones(len(weight))

    with_tensors(tmp_path / "unet", pack, name)
    resolve_image_model(ModelSpec(model=str(tmp_path)), WHERE, on_gpu=True)
    with_tensors(tmp_path / "unet", drop("conv_in.weight"), name)
    with pytest.raises(InputError, match=r"lack 1 of the tensors .*conv_in"):
        resolve_image_model(ModelSpec(model=str(tmp_path)), WHERE, on_gpu=True)
