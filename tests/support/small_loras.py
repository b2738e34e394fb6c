"""Adapters of a small Stable Diffusion, by PEFT's and diffusers' own code, in the formats that are
about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

UNET = ["to_q", "to_out.0", "conv1", "ff.net.0.proj", "time_emb_proj"]
TEXT = ["q_proj", "out_proj", "fc1"]
Tensor = torch.Tensor


def adapted(model: Any, targets: list[str], seed: int, **settings: Any) -> Any:
    """A model with a LoRA that changes it, as one that was trained."""
    torch.manual_seed(seed)
    given = {"r": 4, "lora_alpha": 8, "init_lora_weights": "gaussian", **settings}
    inject_adapter_in_model(LoraConfig(target_modules=targets, **given), model)
    change(model)
    return model


@torch.no_grad()
def change(model: Any) -> None:
    for name, value in model.named_parameters():
        if "lora_B" in name:
            value.normal_(std=0.2)
        elif "lora_magnitude" in name:
            value.mul_(1.3)


def save_by_diffusers(folder: Path, unet: Any, encoder: Any = None, *, told: bool = True) -> Path:
    """``pytorch_lora_weights.safetensors``, as the scripts of diffusers write it."""
    from diffusers import StableDiffusionPipeline
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers

    layers = {"unet": unet, "text_encoder": encoder}
    layers = {name: layer for name, layer in layers.items() if layer is not None}
    states = {
        f"{name}_lora_layers": convert_state_dict_to_diffusers(get_peft_model_state_dict(layer))
        for name, layer in layers.items()
    }
    metadata = _collate_lora_metadata(layers) if told else {}
    StableDiffusionPipeline.save_lora_weights(folder, **states, **metadata)
    return folder


def save_by_peft(
    folder: Path, network: Any, seed: int, targets: Sequence[str] = UNET, **settings: Any
) -> tuple[Path, Any]:
    """An adapter that PEFT itself has put on a network and saved; the adapted network."""
    torch.manual_seed(seed)
    model = get_peft_model(network, LoraConfig(target_modules=list(targets), **settings))
    change(model)
    model.save_pretrained(folder)
    return folder, model.eval()


def save_by_kohya(file: Path, unet: Any, *encoders: Any, **more: Tensor) -> Path:
    """A file as kohya's scripts write it: names with underscores, the scale as a tensor, and a
    DoRA's magnitudes with all axes of the weight."""
    tensors: dict[str, Tensor] = dict(more)
    starts = ["lora_te1", "lora_te2"] if len(encoders) == 2 else ["lora_te"]
    models = {"lora_unet": unet}
    models |= {f"{start}_text_model": one for start, one in zip(starts, encoders, strict=False)}
    for start, model in models.items():
        config = model.peft_config["default"]
        for name, value in get_peft_model_state_dict(model).items():
            module, _, half = name.removesuffix(".weight").rpartition(".")
            flat = f"{start}_{module.removeprefix('text_model.').replace('.', '_')}"
            kind = {"lora_A": "lora_down.weight", "lora_B": "lora_up.weight"}.get(half)
            if kind is None:
                axes = model.get_submodule(module).base_layer.weight.ndim
                kind, value = "dora_scale", value.reshape(-1, *[1] * (axes - 1))
            tensors[f"{flat}.{kind}"] = value.contiguous()
            tensors[f"{flat}.alpha"] = torch.tensor(float(config.lora_alpha))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file
