"""Reading a training file: YAML to :class:`TargetTrainingSpec` or :class:`LoraTrainingSpec`."""

from __future__ import annotations

from pathlib import Path

from raymia.spec.file import parse_as, read_mapping
from raymia.spec.image_training import LoraTrainingSpec
from raymia.spec.paths import with_absolute_paths
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
        return with_absolute_paths(parse_as(LoraTrainingSpec, content, str(path)), folder)
    return with_absolute_paths(parse_as(TargetTrainingSpec, content, str(path)), folder)
