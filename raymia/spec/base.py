"""What every section of the audit file is made of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]
Share = Annotated[float, Field(gt=0, lt=1)]
EngineKind = Literal["ray", "local"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class Place:
    """Stands in the annotation of a text that says where something lies.

    What a section holds of these is what :func:`raymia.spec.paths.with_paths` replaces.

    Attributes
    ----------
    of : what lies at a place that is named so: data, that is a file or folder that is read or
        written, checkpoints, that is a folder or pattern of them or a file that names some, or the
        weights of a model, which may be in the hub; None where it is no place.
    """

    of: Callable[[str], Literal["data", "checkpoints", "weights"] | None]


DataPath = Annotated[str, Place(lambda _: "data")]
Checkpoints = Annotated[str, Place(lambda _: "checkpoints")]
Weights = Annotated[str, Place(lambda _: "weights")]
Text = TypeVar("Text", bound=str)
OneOrMore = Annotated[list[Text], BeforeValidator(_as_list)]
"""A list; one alone need not stand in it."""
Paths = OneOrMore[DataPath]


MAX_NUMBER = 2**31 - 1
"""No count, size or time of an audit is larger."""
MAX_SEED = 2**63 - 1


class RenamedKeyWarning(UserWarning):
    """A key of the audit file stands there by a name that it no longer has."""


class Strict(BaseModel):
    """Base of every model of the audit file.

    ``RENAMED`` has the earlier names of keys: they go on working, with a note.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
    RENAMED: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _by_present_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for key, number in value.items():
            largest = MAX_SEED if key == "seed" else MAX_NUMBER
            if isinstance(number, int) and abs(number) > largest:
                raise ValueError(f"{key} should be a number of at most {largest:,}")
        for old, new in cls.RENAMED.items():
            if old in value and new in value:
                raise ValueError(f"{old} and {new} are one key; leave out {old}")
            if old in value:
                warnings.warn(f"`{old}` is now `{new}`", RenamedKeyWarning, stacklevel=2)
                value = {new if key == old else key: held for key, held in value.items()}
        return value


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
