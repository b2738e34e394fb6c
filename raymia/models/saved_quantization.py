"""Checkpoints whose weights were saved quantized: how, and what it takes to read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raymia.storage.safetensors import TensorHeader
from raymia.util.errors import InputError
from raymia.util.listing import FEW, listed
from raymia.util.once import Once
from raymia.util.optional import require
from raymia.util.stated import OBJECT, TEXT, stated, stated_if

TORCHAO = "torchao"
PACKAGES = {
    "awq": ("gptqmodel",), "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",), "fp8": (), "gptq": ("optimum", "gptqmodel"),
    "mxfp4": (), "mxfp8": (), TORCHAO: ("torchao",),
}  # fmt: skip
"""Packages that read weights that were saved quantized, by the name that configs have for the
method. transformers itself reads the others here; methods that it does not know it reads as if the
weights were whole."""
IN_DIFFUSERS = frozenset({"bitsandbytes", TORCHAO})
"""Methods of which diffusers reads what it has saved."""

_WHOLE_NUMBERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "F4"})
BLOCKS = "_blocks"
"""End of the names of experts' weights in MXFP4."""
_WEIGHTS = re.compile(rf"(^|\.)(q?weight|weight_packed|_?weight_qdata|\w+{BLOCKS})$")
"""Names of weights among integers, which are also zeros, orders of columns and shapes: of
bitsandbytes and int8, GPTQ and AWQ, compressed-tensors, torchao, and MXFP4."""
SCALE = re.compile(r"(absmax|SCB|(?<!input_)scale[^.]*)$")
"""Names of scales of weights, which those of inputs are not."""


def saved_quantization(
    settings: Any, file: Path, where: str, once: Once, known: frozenset[str] = frozenset(PACKAGES)
) -> str | None:
    """How weights were quantized when they were saved, after checking that they can be read.

    Parameters
    ----------
    settings : ``quantization_config`` of the config in ``file``, None where it has none.
    known : methods that can be read.

    Returns
    -------
    The method; of bitsandbytes what the audit file calls it: int8, nf4 or fp4. None for weights
    that are not quantized.

    Raises
    ------
    InputError
        For a method that cannot be read, or not by the packages that are installed.
    """
    if settings is None:
        return None
    if hasattr(settings, "to_dict"):
        settings = settings.to_dict()
    place = f"{where}: {file}"
    stated({"quantization_config": settings}, "quantization_config", OBJECT, place)
    method = stated_if(settings, "quant_method", TEXT, place)
    kind = _of_bitsandbytes(settings)
    if kind is not None:
        method = "bitsandbytes"
    if method not in known:
        raise InputError(
            f"{where}: {file} has a quantization_config with the quant_method {method!r}, and "
            f"raymia reads weights that were quantized with {', '.join(sorted(known))}; save the "
            "checkpoint without quantization, or with one of these"
        )
    for package in PACKAGES[method]:
        once(require, package, f"weights that were saved with {method}", where=where)
    return kind or str(method)


def quantization_in(config: Any) -> Any:
    """``quantization_config`` of a config of transformers, wherever transformers looks for it."""
    places = (config, config.get_text_config(decoder=True))
    found = (getattr(place, "quantization_config", None) for place in places)
    return next((settings for settings in found if settings is not None), None)


def rounds_inputs(settings: Any) -> bool:
    """Whether layers round what enters them to whole numbers of 8 bits, as LLM.int8, W8A8 of
    compressed-tensors and dynamic activations of torchao do: a last digit that another batch
    changes then moves answers by as much as such a step.

    Parameters
    ----------
    settings : ``quantization_config`` of a config that :func:`saved_quantization` accepts.
    """
    if settings is None:
        return False
    if not isinstance(settings, Mapping):
        settings = settings.to_dict()
    groups = settings.get("config_groups") or {}
    of_inputs = (group.get("input_activations") or {} for group in groups.values())
    return (
        bool(settings.get("load_in_8bit"))
        or any(one.get("type", "int") == "int" for one in of_inputs if one)
        or "Int8DynamicActivation" in str(settings.get("quant_type"))
    )


def _of_bitsandbytes(settings: Mapping[str, Any]) -> str | None:
    if settings.get("load_in_8bit"):
        return "int8"
    if settings.get("load_in_4bit"):
        return str(settings.get("bnb_4bit_quant_type", "fp4"))
    return None


def refuse_twice(saved: str | None, asked: str, path: Path, where: str) -> None:
    """Refuse to quantize what is quantized already.

    Parameters
    ----------
    saved : what :func:`saved_quantization` found.
    asked : ``quantization`` of the audit file.
    where : the key that the checkpoint stands under.
    """
    if saved is not None and asked != "none":
        raise InputError(
            f"{where.removesuffix('.model')}.quantization: {path} was saved quantized ({saved}), "
            f"and is read as it is; leave out {asked!r}, or give the checkpoint that it was made "
            "from"
        )


def refuse_unscaled(tensors: Mapping[str, TensorHeader], path: Path, where: str) -> None:
    """Refuse quantized weights without a scale beside them: some are read as if it were 1, and
    others with numbers that are drawn.

    Raises
    ------
    InputError
        Naming the first of the tensors.
    """
    scales = {name for name in tensors if SCALE.search(name)}
    scaled = {name.rpartition(".")[0] for name in scales}
    packed = (name for name, tensor in sorted(tensors.items()) if is_packed(name, tensor))
    bare = [
        name
        for name in packed
        if not (
            f"{name.removesuffix(BLOCKS)}_scales" in scales
            if name.endswith(BLOCKS)
            else {name, name.rpartition(".")[0]} & scaled
        )
    ]
    if bare:
        raise InputError(
            f"{where}: {path}: {len(bare):,} of its tensors are quantized and have no scale beside "
            f"them ({listed(bare, FEW)}); copy the whole checkpoint again"
        )


def is_packed(name: str, tensor: TensorHeader) -> bool:
    """Whether a tensor is of weights that mean nothing without a scale."""
    if tensor.dtype.startswith("F8_"):
        return SCALE.search(name) is None
    return tensor.dtype in _WHOLE_NUMBERS and _WEIGHTS.search(name) is not None
