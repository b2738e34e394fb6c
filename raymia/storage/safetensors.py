"""Files of tensors, as far as their headers tell; no tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

from raymia.util.errors import InputError


def check_whole(file: Path, where: str) -> None:
    """Refuse a safetensors file that is shorter than its header says, as a broken download is."""
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            header = json.loads(content.read(length)) if 8 + length <= size else {}
        ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        ends = []
    if not ends or size != 8 + length + max(ends):
        raise InputError(
            f"{where}: {file} is not a whole safetensors file ({size:,} bytes); copy or download "
            "it again"
        )
