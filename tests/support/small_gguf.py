"""A small Llama as a GGUF file, with the numbers of one that transformers saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

HEAD = 16


def save_gguf(
    folder: Path,
    *,
    name: str = "small.gguf",
    width: int = 32,
    layers: int = 2,
    vocabulary: int = 64,
    packed: bool = False,
) -> Path:
    """Write a Llama of random numbers, its matrices packed to 8 bits or not; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / name, "llama")
    for key, value in {
        "context_length": 128, "embedding_length": width, "block_count": layers,
        "feed_forward_length": 2 * width, "head_count": width // HEAD, "head_count_kv": 1,
        "vocab_size": vocabulary, "rope_dimension_count": HEAD,
    }.items():  # fmt: skip
        getattr(writer, f"add_{key}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    draws = np.random.default_rng(0)

    def add(tensor: str, *shape: int) -> None:
        numbers: Any = draws.normal(size=shape).astype(np.float32)
        if packed and len(shape) == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{tensor}.weight", gguf.quantize(numbers, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{tensor}.weight", numbers)

    for end in ("token_embd", "output"):
        add(end, vocabulary, width)
    add("output_norm", width)
    for layer in range(layers):
        for part, shape in {
            "attn_norm": (width,), "ffn_norm": (width,), "attn_q": (width, width),
            "attn_k": (HEAD, width), "attn_v": (HEAD, width), "attn_output": (width, width),
            "ffn_gate": (2 * width, width), "ffn_up": (2 * width, width),
            "ffn_down": (width, 2 * width),
        }.items():  # fmt: skip
            add(f"blk.{layer}.{part}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder
