"""What kohya's scripts write of a training into the header of the LoRA that it made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import safe_open

PREDICTED = {"v": "v_prediction", "epsilon": "epsilon"}
FLAGS = {"True": True, "False": False}
CHUNK = 75
"""Tokens of a caption that a CLIP reads at once, beside its beginning and end."""


def written_by_kohya(file: Path) -> dict[str, Any]:
    """What a header says, by the keys of `training`; what it does not say is not there.

    Beside these keys, ``resolution`` is width and height, and ``chunked`` the tokens that a
    training read of captions which it cut into chunks.
    """
    with safe_open(file, framework="pt") as content:
        header = content.metadata() or {}
    own = {name: value for name, value in header.items() if name.startswith("ss_")}
    if not own:
        return {}
    skipped, length = own.get("ss_clip_skip"), _number(own.get("ss_max_token_length"))
    said = {
        "clip_skip": 1 if skipped == "None" else _number(skipped),
        "prediction": PREDICTED.get(header.get("modelspec.prediction_type", "")),
        "zero_terminal_snr": FLAGS.get(own.get("ss_zero_terminal_snr", "")),
        "crop": "bucket" if own.get("ss_enable_bucket") == "True" else None,
        "resolution": _size(own.get("ss_resolution", "")),
        "chunked": length if length is not None and length > CHUNK else None,
    }
    if said["prediction"] is None and own.get("ss_base_model_version", "").endswith("_v"):
        said["prediction"] = "v_prediction"
    return {key: value for key, value in said.items() if value is not None}


def _number(written: str | None) -> int | None:
    found = re.fullmatch(r"[1-9]\d{0,5}", written or "")
    return int(found[0]) if found else None


def _size(written: str) -> tuple[int, int] | None:
    """Width and height of "(512, 768)", "512,768" or "512"."""
    found = re.fullmatch(r"[(\[]?(\d{1,5})(?:, ?(\d{1,5}))?[)\]]?", written)
    return (int(found[1]), int(found[2] or found[1])) if found else None
