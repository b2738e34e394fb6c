"""Checkpoints that other packages saved quantized, against transformers one text at a time.

    pip install torchao compressed-tensors
    python tools/quantized_sweep.py

A small Llama with random weights is quantized and saved by the package, as its users do it, and is
then planned and loaded as an audit does it. It ends with 1 where an answer is off by more than
1e-5 from that of the checkpoint as transformers loads it, or a checkpoint is refused.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from architecture_sweep import ASSETS, TOLERANCE, one_text, some_texts

from raymia.models.causal.resolver import resolve_causal_lm
from raymia.spec import ModelSpec, PoolSpec
from raymia.util.errors import first_line

GROUP = 32
"""Weights that share a scale, where each row does not have one of its own."""

TOKENS = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
"""Inputs of layers with a scale for each token, as W8A8 checkpoints have it."""


def small_llama(folder: Path) -> Any:
    """Save a Llama of 850,000 parameters, wide enough for groups of weights."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


def torchao(kind: str) -> Callable[[Path, Path], None]:
    """Whole numbers of 8 bits, with a scale for each row."""

    def save(base: Path, folder: Path) -> None:
        import torchao.quantization

        settings = transformers.TorchAoConfig(getattr(torchao.quantization, kind)(version=2))
        made = transformers.AutoModelForCausalLM.from_pretrained(base, quantization_config=settings)
        made.save_pretrained(folder)

    return save


def compressed(
    layout: str, inputs: Mapping[str, Any] | None = None, **settings: Any
) -> Callable[[Path, Path], None]:
    """One of the layouts of compressed-tensors, which llm-compressor and vLLM use.

    Parameters
    ----------
    inputs, settings : how inputs of layers are quantized, if they are, and how weights are.
    """

    def save(base: Path, folder: Path) -> None:
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import (
            QuantizationArgs,
            QuantizationConfig,
            QuantizationScheme,
            QuantizationStatus,
            apply_quantization_config,
        )
        from compressed_tensors.quantization.utils import calculate_qparams

        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        weights = QuantizationArgs(symmetric=True, **settings)
        scheme = QuantizationScheme(
            targets=["Linear"],
            weights=weights,
            input_activations=None if inputs is None else QuantizationArgs(**inputs),
        )
        made = QuantizationConfig(
            config_groups={"all": scheme}, ignore=["lm_head"], format=layout,
            quantization_status="compressed",
        )  # fmt: skip
        apply_quantization_config(model, made)
        for module in model.modules():
            if not hasattr(module, "weight_scale"):
                continue
            rows = module.weight.detach()
            alike = rows if weights.group_size is None else rows.unflatten(1, (-1, GROUP))
            scale, _ = calculate_qparams(alike.amin(-1), alike.amax(-1), weights)
            module.weight_scale.data = scale.reshape(module.weight_scale.shape)
            module.quantization_status = QuantizationStatus.FROZEN
        compressor = ModelCompressor.from_pretrained_model(model, layout)
        compressor.compress_model(model)
        model.save_pretrained(folder)
        compressor.update_config(folder)

    return save


FORMS: dict[str, Callable[[Path, Path], None]] = {
    "torchao, int8": torchao("Int8WeightOnlyConfig"),
    "torchao, int8, inputs too": torchao("Int8DynamicActivationInt8WeightConfig"),
    "compressed-tensors, int-quantized": compressed(
        "int-quantized", num_bits=8, type="int", strategy="channel"
    ),
    "compressed-tensors, inputs too": compressed(
        "int-quantized", TOKENS, num_bits=8, type="int", strategy="channel"
    ),
    "compressed-tensors, pack-quantized": compressed(
        "pack-quantized", num_bits=4, type="int", strategy="group", group_size=GROUP
    ),
    "compressed-tensors, float-quantized": compressed(
        "float-quantized", num_bits=8, type="float", strategy="channel"
    ),
}


def off_by(form: str, scratch: Path) -> tuple[float, float]:
    """The largest difference between raymia's log-probabilities and those of transformers, and what
    quantizing changed."""
    whole = small_llama(scratch / "whole")
    folder = scratch / "quantized"
    FORMS[form](scratch / "whole", folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS / "models" / "base")
    tokenizer.save_pretrained(folder)
    found = resolve_causal_lm(ModelSpec(model=str(folder)), form, on_gpu=False)
    texts = some_texts(0)
    answers = found.loader(PoolSpec(batch_tokens=1_024)).load().answer(texts, moments=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    differences = []
    for text, answer in zip(texts, answers, strict=True):
        same = one_text(theirs, tokenizer, text)
        changed = np.abs(same - one_text(whole, tokenizer, text)).max()
        differences.append((float(np.abs(answer.log_prob - same).max()), float(changed)))
    return max(off for off, _ in differences), max(changed for _, changed in differences)


def main() -> int:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failed = 0
    for form in FORMS:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                off, changed = off_by(form, Path(scratch))
                said = f"off by {off:.1e}; quantizing changed answers by up to {changed:.2g}"
                wrong = off > TOLERANCE or changed <= TOLERANCE
            except Exception as error:  # whatever it is, it is what is looked for
                said, wrong = f"{type(error).__name__}: {first_line(error)}", True
        failed += wrong
        print(f"{form:36} {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
