"""Files of tensors, as far as their headers and bytes tell; no number is read."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raymia.storage.refusals import refusals
from raymia.util.errors import InputError
from raymia.util.regular_files import check_is_file
from raymia.util.strict_json import parse_json


@dataclass(frozen=True)
class TensorHeader:
    """What a header says of a tensor: safetensors' name of its number type, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(file: Path, where: str) -> dict[str, TensorHeader]:
    """What a safetensors file holds, by name.

    Raises
    ------
    InputError
        If its header says nothing, or it is shorter than that says, as a broken download is.
    """
    with refusals(file, "safetensors", where):
        check_is_file(file)
        size = file.stat().st_size
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = content.read(length) if 8 + length <= size else b""
    try:
        entries = parse_json(header, unique_keys=True)
        entries.pop("__metadata__", None)
        offsets = [[*map(_count, entry["data_offsets"])] for entry in entries.values()]
        end = max(end for start, end in offsets)
        found = {
            name: TensorHeader(str(entry["dtype"]), tuple(map(_count, entry["shape"])))
            for name, entry in entries.items()
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        found, length, end = {}, 0, 0
    if not found or size != 8 + length + end:
        raise InputError(
            f"{where}: {file} is not a whole safetensors file ({size:,} bytes); copy or download "
            "it again"
        )
    return found


AT_ONCE = 2**16
"""Bytes of a tensor that are looked at together."""


def are_zero(file: Path, names: Collection[str]) -> bool:
    """Whether every number of some tensors of floats is zero, of either sign; ends with the first
    that is not.

    Parameters
    ----------
    file : one that :func:`read_header` takes.
    """
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        entries = parse_json(content.read(length))
        for name in names:
            start, end = entries[name]["data_offsets"]
            width = max(1, (end - start) // max(1, math.prod(entries[name]["shape"])))
            but_the_sign = 2 ** (8 * width - 1) - 1
            content.seek(8 + length + start)
            for place in range(start, end, AT_ONCE):
                numbers = np.frombuffer(content.read(min(AT_ONCE, end - place)), f"<u{width}")
                if (numbers & but_the_sign).any():
                    return False
    return True


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError(f"a number of elements or bytes is expected, but got {value!r}")


def with_ordered_metadata(content: bytes) -> bytes:
    """A file's content whose metadata are in the order of their names: safetensors writes them in
    any, and equal files should be equal byte by byte."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]
