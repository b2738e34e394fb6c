"""LoRAs of diffusion models that are trained: put on a network, saved as diffusers saves them."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from raymia.models.denoisers.lora_files import BY_DIFFUSERS, IN_HEADER
from raymia.models.denoisers.lora_fit import adaptable
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.image_source import ImageFolder, describe_part
from raymia.prepare.training_files import write_facts
from raymia.spec.methods import LowRank
from raymia.storage.files import Folder
from raymia.storage.safetensors import with_ordered_metadata
from raymia.util.caller import silenced
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.optional import require

USUAL = (
    "to_q", "to_k", "to_v", "to_out.0",
    "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
)  # fmt: skip
"""Modules that diffusers' own scripts put a LoRA on: attention, in some transformers also that of
the caption's tokens."""
SHOWN = 12

LoraSettings = Mapping[str, Any]
"""Keys of PEFT's LoraConfig; JSON-serializable."""


def lora_settings(method: LowRank, base: DenoiserCheckpoint) -> dict[str, Any]:
    """A LoRA of a network as PEFT's config says it; loads no weights.

    Raises
    ------
    InputError
        Naming modules that the network does not have, with the names that are near.
    """
    require("peft", "adapters")
    names = modules_of(base)
    wanted = method.target_modules or [one for one in USUAL if _has(names, one)]
    what = f"target_modules: the {base.network.kind} of {base.path}"
    if not wanted:
        raise InputError(
            f"{what} has no attention as others do ({listed(USUAL, 4)}); name some of its modules, "
            f"which end in {listed(_ends(names), SHOWN)}"
        )
    missing = [one for one in wanted if not _has(names, one)]
    if missing:
        raise InputError(f"{what} has no {one!r}; {_near(one, names)}" for one in missing)
    return {**method.settings, "target_modules": list(wanted)}


def lora_weights(method: LowRank, base: DenoiserCheckpoint) -> int:
    """How many numbers a LoRA has; loads nothing."""
    wanted = lora_settings(method, base)["target_modules"]
    per_layer = (
        method.r * (shape[0] + math.prod(shape[1:])) + (shape[0] if method.kind == "dora" else 0)
        for name, shape in modules_of(base).items()
        if any(_has([name], one) for one in wanted)
    )
    return sum(per_layer)


def put_lora_on(network: Any, settings: LoraSettings, seed: int) -> torch.nn.Module:
    """Freeze a network and put a fresh LoRA on it, which changes nothing yet.

    Returns
    -------
    The parameters of the LoRA alone, in float32.
    """
    with silenced("bitsandbytes"):  # which PEFT imports
        from peft import LoraConfig, inject_adapter_in_model

    network.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(**settings, init_lora_weights="gaussian")
        inject_adapter_in_model(config, network)
    return _Adapter(network)


def save_lora(network: Any, part: str, facts: dict[str, Any], out: Path) -> None:
    """Save the LoRA of a network as diffusers' scripts do; whole, or not to be taken for one.

    Parameters
    ----------
    part : of a pipeline that the network is, "unet" or "transformer".
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = get_peft_model_state_dict(network)
    if part == "unet":  # whose modules have names of their own; transformers have PEFT's
        state = convert_state_dict_to_diffusers(state)
    config = {
        f"{part}.{key}": sorted(value) if isinstance(value, set) else value
        for key, value in network.peft_config["default"].to_dict().items()
    }
    content = safetensors.torch.save(
        {f"{part}.{name}": value.detach().cpu().contiguous() for name, value in state.items()},
        metadata={"format": "pt", IN_HEADER: json.dumps(config, indent=2, sort_keys=True)},
    )
    write_facts(out, facts)
    Folder(str(out)).write(BY_DIFFUSERS, with_ordered_metadata(content))


class _Adapter(torch.nn.Module):
    """What is trained of a network under an adapter."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
                self.register_parameter(name.replace(".", "/"), parameter)


def modules_of(base: DenoiserCheckpoint) -> dict[str, tuple[int, ...]]:
    """Modules that can have a LoRA, with the shapes of their weights."""
    folder = Path(base.path)
    there = ImageFolder(folder, base.path, base.dtype, "none", on_gpu=True, config=None)
    described = describe_part(folder / base.network.folder, base.network.kind, there)
    return dict(adaptable(described))


def _has(names: Iterable[str], wanted: str) -> bool:
    return any(name == wanted or name.endswith(f".{wanted}") for name in names)


def _ends(names: Iterable[str], parts: int = 1) -> list[str]:
    """What names end in that stand for a kind of modules: so many parts, and one more where the
    last is a number."""
    split = [name.split(".") for name in names]
    ends = [".".join(p[-parts - p[-1].isdecimal() :]) for p in split]
    return list(dict.fromkeys(ends))


def _near(wanted: str, names: Iterable[str]) -> str:
    ends = _ends(names)
    alike = _ends(names, wanted.count(".") + 1)
    if near := difflib.get_close_matches(wanted, [*dict.fromkeys(alike + ends)], n=3, cutoff=0.5):
        return f"near it are {listed(near)}"
    return f"its modules end in {listed(ends, SHOWN)}"
