"""Reading a training file: YAML to :class:`TargetTrainingSpec` or :class:`LoraTrainingSpec`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from raymia.spec.file import (
    absolute_data,
    absolute_weights,
    parse_as,
    read_mapping,
    training_paths,
)
from raymia.spec.image_training import LoraTrainingSpec
from raymia.spec.target_training import TargetTrainingSpec
from raymia.storage.manifest import MANIFEST_FILE
from raymia.storage.refusals import refusals
from raymia.util.errors import InputError


def is_training_file(path: Path) -> bool:
    """Whether a file is one of a training; not so one that cannot be read."""
    try:
        content = read_mapping(path, "training file", "")
    except InputError:
        return False
    return "base" in content and not {"targets", "checkpoints"} & {*content}


def load_training(path: str | Path) -> TargetTrainingSpec:
    """Read and validate a training file of texts; relative paths in it become absolute.

    Raises
    ------
    InputError
        With every problem found, each naming the key it is about.
    """
    spec = load_any_training(path)
    if isinstance(spec, LoraTrainingSpec):
        raise InputError(f"{path}: records.kind: it is of images, and texts are expected")
    return spec


def load_any_training(path: str | Path) -> TargetTrainingSpec | LoraTrainingSpec:
    """Read and validate a training file of texts or of images; see :func:`load_training`."""
    path = Path(path)
    content = read_mapping(path, "training file", "docs/training.md shows one to start from")
    if path.name == MANIFEST_FILE and "checkpoints" in content:
        raise InputError(
            f"{path}: the manifest of a training that is done; give `raymia audit` or `plan` the "
            "manifest, and `raymia train` the training file"
        )
    records = content.get("records")
    is_of_images = isinstance(records, dict) and records.get("kind") == "image"
    with refusals(path, "YAML"):
        folder = path.resolve().parent
    if is_of_images:
        lora = parse_as(LoraTrainingSpec, content, str(path))
        return _images_with_absolute_paths(lora, folder)
    return with_absolute_paths(parse_as(TargetTrainingSpec, content, str(path)), folder)


def _images_with_absolute_paths(spec: LoraTrainingSpec, folder: Path) -> LoraTrainingSpec:
    data = partial(absolute_data, folder)
    files = [data(path) for path in spec.records.files]
    return spec.model_copy(
        update={
            "output": data(spec.output),
            "base": absolute_weights(folder, spec.base),
            "records": spec.records.model_copy(update={"files": files}),
        }
    )


def with_absolute_paths(spec: TargetTrainingSpec, folder: Path) -> TargetTrainingSpec:
    """Resolve every relative path of a spec against the folder of its file."""
    data = partial(absolute_data, folder)
    records: dict[str, Any] = {
        key: [data(path) for path in getattr(spec.records, key)]
        for key in ("files", "members", "held_out")
    }
    model = absolute_weights(folder, spec.base.model)
    return spec.model_copy(
        update={
            "output": data(spec.output),
            "base": spec.base.model_copy(update={"model": model}),
            "records": spec.records.model_copy(update=records),
            "training": training_paths(spec.training, data),
        }
    )
