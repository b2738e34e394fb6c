"""Files of tensors, as far as their headers tell; no tensor is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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
