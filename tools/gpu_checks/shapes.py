"""Models of real shapes with random weights, made on the device; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

DEPTH_CHECKED = 2
"""Layers of the models whose answers are compared with float32."""
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 3 8B": ("Llama", {
        "vocab_size": 128_256, "hidden_size": 4_096, "intermediate_size": 14_336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 8_192, "tie_word_embeddings": False,
    }),
    "Qwen3 8B": ("Qwen3", {
        "vocab_size": 151_936, "hidden_size": 4_096, "intermediate_size": 12_288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 8_192, "tie_word_embeddings": False,
    }),
    "Gemma 2 2B": ("Gemma2", {
        "vocab_size": 256_000, "hidden_size": 2_304, "intermediate_size": 9_216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "head_dim": 256, "max_position_embeddings": 8_192,
    }),
    "GPT-2": ("GPT2", {"num_hidden_layers": 12, "vocab_size": 50_257}),
}  # fmt: skip
"""Kinds of configs of transformers, and what makes them what they are called."""
SMALL: dict[str, Any] = {
    "vocab_size": 2_048, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "max_position_embeddings": 256,
}  # fmt: skip


def text_config(name: str, *, is_tiny: bool, layers: int | None = None) -> Any:
    """The config of a model by name; with fewer layers where they are given."""
    kind, settings = LARGE[name]
    made = getattr(transformers, f"{kind}Config")
    given = {key: SMALL.get(key, value) if is_tiny else value for key, value in settings.items()}
    if layers is not None:
        given["num_hidden_layers"] = layers
    if kind == "GPT2":
        given = {"n_layer": given.pop("num_hidden_layers"), **given}
        if is_tiny:
            given |= {"n_embd": 32, "n_head": 2, "n_positions": 256}
    return made(**given)


def text_model(config: Any, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Any:
    """A causal model with random weights."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.to(device).eval()


def quantized(model: Any, name: str, device: torch.device) -> Any:
    """The model with its linear layers, all but the output layer, as bitsandbytes keeps them."""
    import bitsandbytes as bnb

    makers: dict[str, Callable[[nn.Linear], nn.Module]] = {
        "nf4": lambda given: _filled(
            bnb.nn.Linear4bit(
                given.in_features, given.out_features, bias=given.bias is not None,
                compute_dtype=given.weight.dtype, quant_type="nf4",
            ),
            given, bnb.nn.Params4bit(given.weight.data, requires_grad=False, quant_type="nf4"),
        ),
        "int8": lambda given: _filled(
            bnb.nn.Linear8bitLt(
                given.in_features, given.out_features, bias=given.bias is not None,
                has_fp16_weights=False,
            ),
            given,
            bnb.nn.Int8Params(given.weight.data, requires_grad=False, has_fp16_weights=False),
        ),
    }  # fmt: skip
    output = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name_in, child in list(parent.named_children()):
            if type(child) is nn.Linear and child is not output:
                setattr(parent, name_in, makers[name](child).to(device))
    return model


def _filled(layer: Any, given: nn.Linear, weight: Any) -> nn.Module:
    layer.weight, layer.bias = weight, given.bias
    made: nn.Module = layer
    return made


def image_networks(*, is_tiny: bool) -> dict[str, Callable[[], tuple[Any, Callable[..., Any]]]]:
    """By name, what makes a network and its inputs for (images, device, dtype)."""
    return {"SDXL UNet": lambda: _sdxl(is_tiny), "flow transformer": lambda: _flow(is_tiny)}


def _sdxl(is_tiny: bool) -> tuple[Any, Callable[..., Any]]:
    from diffusers import UNet2DConditionModel

    side, width, pooled = (16, 32, 16) if is_tiny else (128, 2_048, 1_280)
    stages = (32, 64, 64) if is_tiny else (320, 640, 1_280)
    times = 8 if is_tiny else 256
    network = UNet2DConditionModel(
        sample_size=side, in_channels=4, out_channels=4, block_out_channels=stages,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1 if is_tiny else (1, 2, 10),
        attention_head_dim=4 if is_tiny else (5, 10, 20), cross_attention_dim=width,
        use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=times, projection_class_embeddings_input_dim=6 * times + pooled,
        norm_num_groups=8 if is_tiny else 32,
    )  # fmt: skip

    def inputs(count: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "sample": _normal((count, 4, side, side), device, dtype),
            "timestep": torch.arange(1, count + 1, device=device),
            "encoder_hidden_states": _normal((count, 7 if is_tiny else 77, width), device, dtype),
            "added_cond_kwargs": {
                "text_embeds": _normal((count, pooled), device, dtype),
                "time_ids": torch.full((count, 6), 16.0, device=device, dtype=dtype),
            },
        }

    return network, inputs


def _flow(is_tiny: bool) -> tuple[Any, Callable[..., Any]]:
    from diffusers import SD3Transformer2DModel

    side, heads, joint, pooled = (16, 2, 32, 32) if is_tiny else (128, 24, 4_096, 2_048)
    head = 16 if is_tiny else 64
    channels = 4 if is_tiny else 16
    network = SD3Transformer2DModel(
        sample_size=side, patch_size=2, in_channels=channels, out_channels=channels,
        num_layers=2 if is_tiny else 24, attention_head_dim=head, num_attention_heads=heads,
        joint_attention_dim=joint, caption_projection_dim=head * heads,
        pooled_projection_dim=pooled, pos_embed_max_size=16 if is_tiny else 192,
    )  # fmt: skip

    def inputs(count: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "hidden_states": _normal((count, channels, side, side), device, dtype),
            "timestep": torch.arange(1, count + 1, device=device),
            "encoder_hidden_states": _normal((count, 7 if is_tiny else 77, joint), device, dtype),
            "pooled_projections": _normal((count, pooled), device, dtype),
        }

    return network, inputs


def _normal(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return drawn.to(device=device, dtype=dtype)
