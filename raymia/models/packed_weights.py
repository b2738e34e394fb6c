"""Weights that were saved packed: what they are when they are unpacked, and whether the scales that
they are read by have the shapes for it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from raymia.models.saved_quantization import BLOCKS, is_packed
from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError
from raymia.util.listing import FEW, listed
from raymia.util.stated import WHOLES

_OF_A_LAYER = frozenset({"weight", "qweight", "weight_packed", "weight_qdata", "_weight_qdata"})
"""Last names of packed weights that are all of a layer's."""
_ABSMAX = ".absmax"
"""End of the names of the scales of weights that bitsandbytes packed into 4 bits."""
_STATES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
_BLOCK_SIZES = tuple(2**power for power in range(5, 13))
"""How many weights of 4 bits may share a scale; it is one number in one checkpoint."""
_LEVELS, _NESTED_LEVELS, _NESTED_BLOCK = 16, 256, 256
"""Numbers that weights of 4 bits stand for, and their scales of 8 bits; and how many of these share
a scale."""
_TILE = [128, 128]
"""What transformers takes a tile of float8 for where nothing is said."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I32": 4, "U32": 4}


def as_unpacked(
    tensors: Mapping[str, TensorHeader],
) -> tuple[dict[str, TensorHeader], dict[str, int | None]]:
    """Tensors by the names that they have when they are unpacked, without what these are read by.

    Returns
    -------
    The tensors; and of those that were packed, how many numbers they hold, None where their shape
    does not say it.
    """
    packed: dict[str, str] = {}
    layers = set()
    for name, tensor in tensors.items():
        if not is_packed(name, tensor) and f"{name}{_ABSMAX}" not in tensors:
            continue
        layer, _, last = name.rpartition(".")
        if last in _OF_A_LAYER:
            layers.add(layer)
        packed[name] = f"{layer}.weight" if last in _OF_A_LAYER else name.removesuffix(BLOCKS)
    owners = {*packed.values()}
    plain: dict[str, TensorHeader] = {}
    numbers: dict[str, int | None] = {}
    for name, tensor in tensors.items():
        if name in packed:
            plain[packed[name]] = TensorHeader("BF16", tensor.shape)
            numbers[packed[name]] = _in_4_bits(tensor) if f"{name}{_ABSMAX}" in tensors else None
        elif not _is_beside(name, layers) and re.sub(r"_scale[^.]*$", "", name) not in owners:
            plain[name] = tensor
    return plain, numbers


def _is_beside(name: str, layers: Collection[str]) -> bool:
    """Whether a tensor says how a layer's weights are to be read."""
    parts = name.split(".")
    return parts[-1] != "bias" and any(".".join(parts[:n]) in layers for n in range(1, len(parts)))


def refuse_other_scales(
    tensors: Mapping[str, TensorHeader], settings: Any, path: Path, where: str
) -> None:
    """Refuse scales of other shapes than their weights need: what reads them goes beyond their end,
    or takes them for scales of larger tiles, and answers with other numbers.

    Parameters
    ----------
    settings : ``quantization_config`` of a config that
        :func:`raymia.models.saved_quantization.saved_quantization` accepts.

    Raises
    ------
    InputError
        Naming the first of the scales.
    """
    if not isinstance(settings, Mapping):
        settings = settings.to_dict()
    wrong = [*_wrong_of_4_bits(tensors), *_wrong_of_8_bits(tensors)]
    tile = settings.get("weight_block_size", _TILE)
    if settings.get("quant_method") == "fp8" and WHOLES.holds(tile) and len(tile) == 2:
        wrong += _wrong_of_tiles(tensors, tile)
    if wrong:
        raise InputError(
            f"{where}: {path}: {len(wrong):,} of the tensors that its quantized weights are read "
            f"by do not fit these ({listed(sorted(wrong), FEW)}); copy the whole checkpoint again, "
            "with its own config.json"
        )


def _wrong_of_tiles(tensors: Mapping[str, TensorHeader], tile: Sequence[int]) -> list[str]:
    wrong = []
    for name, tensor in tensors.items():
        scale = tensors.get(f"{name}_scale_inv")
        if scale is None or len(tensor.shape) < 2 or not tensor.dtype.startswith("F8_"):
            continue
        sides = (math.ceil(n / side) for n, side in zip(tensor.shape[-2:], tile, strict=True))
        wanted = (*tensor.shape[:-2], *sides)
        if scale.shape != wanted:
            wrong.append(f"{name}_scale_inv is {by(scale.shape)} and should be {by(wanted)}")
    return wrong


def _wrong_of_8_bits(tensors: Mapping[str, TensorHeader]) -> list[str]:
    wrong = []
    for name, scale in tensors.items():
        weight = tensors.get(f"{name.removesuffix('.SCB')}.weight")
        if name.endswith(".SCB") and weight is not None and scale.shape != weight.shape[:1]:
            wrong.append(f"{name} is {by(scale.shape)} and should be {by(weight.shape[:1])}")
    return wrong


def _wrong_of_4_bits(tensors: Mapping[str, TensorHeader]) -> list[str]:
    ends = (name.removesuffix(_ABSMAX) for name in tensors if name.endswith(_ABSMAX))
    names = [name for name in ends if name in tensors]
    scales = {name: math.prod(tensors[f"{name}{_ABSMAX}"].shape) for name in names}
    weights = {name: _in_4_bits(tensors[name]) for name in names}
    unfitting = [
        {name for name in names if scales[name] != math.ceil(weights[name] / size)}
        for size in _BLOCK_SIZES
    ]
    wrong = [
        f"{name}{_ABSMAX} has {scales[name]:,} numbers for {weights[name]:,} weights"
        for name in min(unfitting, key=len)
    ]
    for name in names:
        wanted = {"quant_map": _LEVELS}
        if {f"{name}.nested_absmax", f"{name}.nested_quant_map"} & tensors.keys():
            nested = math.ceil(scales[name] / _NESTED_BLOCK)
            wanted |= {"nested_quant_map": _NESTED_LEVELS, "nested_absmax": nested}
        for part, count in wanted.items():
            there = tensors.get(f"{name}.{part}")
            if there is None or there.shape != (count,):
                came = "is missing" if there is None else f"is {by(there.shape)}"
                wrong.append(f"{name}.{part} {came} and should be {count}")
        if not {f"{name}.{state}" for state in _STATES} & tensors.keys():
            wrong.append(f"{name}.{_STATES[0]} is missing")
    return wrong


def _in_4_bits(tensor: TensorHeader) -> int:
    """How many numbers of 4 bits a tensor holds."""
    return 2 * math.prod(tensor.shape) * _BYTES.get(tensor.dtype, 1)


def by(shape: Sequence[int]) -> str:
    """A shape in words."""
    return " x ".join(map(str, shape)) or "one number"
