"""Adapters that change nothing, as one is before its first step of training; no model is loaded."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from raymia.storage.safetensors import are_zero, read_header
from raymia.util.once import Once

_FIRST = re.compile(r".*(\.lora_A|\.lora_embedding_B)(\.\w+)?(\.weight)?")
_SECOND = re.compile(r".*(\.lora_B|\.lora_embedding_A)(\.\w+)?(\.weight)?")
"""The matrix that PEFT starts with zeros: of embeddings it is the other one."""


def adds_nothing(file: Path, names: Collection[str], once: Once) -> bool:
    """Whether all tensors of these names in an adapter's file are zero."""
    return bool(names) and bool(once(are_zero, file, frozenset(names)))


def is_idle_lora(file: Path, once: Once) -> bool:
    """Whether a file of PEFT's holds a LoRA, and nothing but it, whose product is zero."""
    names = once(read_header, file, where=str(file))
    second = [name for name in names if _SECOND.fullmatch(name)]
    rest = [name for name in names if not (_FIRST.fullmatch(name) or _SECOND.fullmatch(name))]
    return not rest and adds_nothing(file, second, once)
