"""What the headers of LoRAs say of their trainings, beside what the audit file does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from raymia.modalities.images.trained import OF_THE_SCHEDULE, Said
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
        If they say otherwise than the audit file, or than each other.
    """
    if not isinstance(model, DenoiserCheckpoint):
        return said
    written = dict(said.written)
    for adapter in model.adapters:
        for key, value in written_by_kohya(Path(adapter.file)).items():
            if not _means_something(key, model):
                continue
            own = getattr(said.training, key, None)
            if own is not None and value not in (own, (own, own)):
                raise InputError(
                    f"{said.where}.{key}: it is {own}, and the header of {adapter.file} says "
                    f"{_shown(value)}, as its training wrote it; leave it out"
                )
            before, file = written.setdefault(key, (value, adapter.file))
            if before != value:
                raise InputError(
                    f"{said.where}.{key}: the header of {file} says {_shown(before)}, and that of "
                    f"{adapter.file} {_shown(value)}, and a model is asked in one way; audit them "
                    "as two targets"
                )
    return replace(said, written=written)


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
