"""What every section of the audit file is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Share = Annotated[float, Field(gt=0, lt=1)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Paths = Annotated[list[str], BeforeValidator(_as_list)]
"""Files; one alone need not stand in a list."""


class Strict(BaseModel):
    """Base of every model of the audit file."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def merge_preset(value: Any, presets: dict[str, dict[str, Any]]) -> Any:
    """Lay what the file says over the preset it names; nested sections are laid over key by key."""
    name = value.get("preset") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in presets:
        return value
    preset = presets[name]
    merged = {**preset, **value}
    for key, section in preset.items():
        if isinstance(section, dict) and isinstance(value.get(key), dict):
            merged[key] = {**section, **value[key]}
    return merged
