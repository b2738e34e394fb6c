"""Small checkpoints whose weights are quantized already, as they are published."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from edited import edit
from safetensors.torch import load_file, save_file
from tiny_models import BASE, save_tiny

BLOCK, LARGEST = 16, 448.0
"""Side of the tiles that have a scale each, and the largest number of float8_e4m3fn."""


def set_quantization(folder, settings):
    edit(Path(folder) / "config.json", quantization_config=settings)


def save_block_fp8(folder):
    """A tiny Llama with a scale for each tile of its linear weights, as DeepSeek and Qwen do it."""
    save_tiny(folder, "llama")
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensors[name] = tensor
        if "_proj" in name:
            rows, columns = tensor.shape
            tiles = tensor.reshape(rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
            scale = tiles.abs().amax((1, 3)) / LARGEST
            small = (tiles / scale[:, None, :, None]).reshape(rows, columns)
            tensors[name] = small.to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    set_quantization(
        folder,
        {"quant_method": "fp8", "activation_scheme": "dynamic",
         "weight_block_size": [BLOCK, BLOCK], "modules_to_not_convert": ["lm_head"]},
    )  # fmt: skip
    return folder


def save_bitsandbytes(folder, kind):
    """The model of the demo, quantized and saved by transformers: int8, nf4 or fp4."""
    eight = {"load_in_8bit": True}
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": kind}
    settings = transformers.BitsAndBytesConfig(**(eight if kind == "int8" else four))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        BASE, quantization_config=settings, dtype=torch.float32
    )
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder
