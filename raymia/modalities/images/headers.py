"""What the headers of LoRAs say of their trainings, beside what the audit file does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from raymia.modalities.images.trained import OF_HEADERS, OF_THE_SCHEDULE, Said
from raymia.models.denoisers.kohya_header import written_by_kohya
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.denoisers.schedules import FLOW
from raymia.models.image_source import ImageCheckpoint
from raymia.util.errors import InputError


def with_headers(said: Said, model: ImageCheckpoint) -> Said:
    """The same with what the headers of a target's LoRAs say.

    Raises
    ------
    InputError
        If none of them says what the audit file does, or they differ and that says nothing.
    """
    if not isinstance(model, DenoiserCheckpoint):
        return said
    found: dict[str, list[tuple[Any, str]]] = {}
    for adapter in model.adapters:
        for key, value in written_by_kohya(Path(adapter.file)).items():
            if _means_something(key, model):
                found.setdefault(key, []).append((value, adapter.file))
    for key, each in found.items():
        own = None if key == "crop" else getattr(said.training, key, None)
        values = {value for value, _ in each}
        if own is not None and values.isdisjoint({own, (own, own)}):
            value, file = each[0]
            raise InputError(
                f"{said.where}.{key}: it is {own}, and the header of {file} says "
                f"{_shown(value)}, as its training wrote it; leave it out"
            )
        if own is None and key in OF_HEADERS and len(values) > 1:
            differ = " and ".join(f"{_shown(value)} by {file}" for value, file in each)
            raise InputError(
                f"{said.where}.{key}: the headers of its LoRAs say {differ}, and a model is asked "
                "in one way; say it here"
            )
    return replace(said, written={key: each[0] for key, each in found.items()})


def _means_something(key: str, model: DenoiserCheckpoint) -> bool:
    if key in OF_THE_SCHEDULE:
        return model.prediction != FLOW
    return key != "clip_skip" or model.face.skips_layers


def _shown(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def header_lines(said: Said, name: str, model: ImageCheckpoint) -> list[str]:
    """What is taken from headers, or stands there and is not done, as sentences."""
    if not isinstance(model, DenoiserCheckpoint):
        return []
    lines = [
        f"{name} was trained with `{key}: {str(value).lower()}`, as the header of {file} says, and "
        "is asked so"
        for key, (value, file) in said.written.items()
        if key in model.query.told.given and getattr(said.training, key, None) is None
    ]
    if "crop" in said.written and said.known.crop != "bucket":
        _, file = said.written["crop"]
        lines.append(
            f"images were trained in buckets of their own aspect, as the header of {file} says; "
            "say `crop: bucket` where not all are squares"
        )
    if "resolution" in said.written:
        size, file = said.written["resolution"]
        if size != model.query.size[::-1]:
            height, width = model.query.size
            lines.append(
                f"{name} was trained on images of {_shown(size)}, as the header of {file} says, "
                f"and is asked about images of {width} x {height}; say `resolution`"
            )
    if "chunked" in said.written:
        tokens, file = said.written["chunked"]
        lines.append(
            f"{name} read up to {tokens} tokens of a caption in chunks, as the header of {file} "
            "says, and is asked with the first chunk of longer ones"
        )
    return [f"{said.where}: {line}" for line in lines]
