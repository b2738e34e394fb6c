"""Files of tensors, as far as their headers tell; no tensor is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from raymia.util.errors import InputError


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
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(length)) if 8 + length <= size else {}
        header.pop("__metadata__", None)
        end = max(int(entry["data_offsets"][1]) for entry in header.values())
        found = {
            name: TensorHeader(str(entry["dtype"]), tuple(int(n) for n in entry["shape"]))
            for name, entry in header.items()
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        found, length, end = {}, 0, 0
    if not found or size != 8 + length + end:
        raise InputError(
            f"{where}: {file} is not a whole safetensors file ({size:,} bytes); copy or download "
            "it again"
        )
    return found
