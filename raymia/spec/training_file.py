"""Reading a training file: YAML to :class:`TargetTrainingSpec`."""

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
from raymia.spec.target_training import TargetTrainingSpec
from raymia.storage.refusals import refusals
from raymia.util.errors import InputError


def is_training_file(path: Path) -> bool:
    """Whether a file is one of a training; not so one that cannot be read."""
    try:
        content = read_mapping(path, "training file", "")
    except InputError:
        return False
    return "base" in content and "targets" not in content


def load_training(path: str | Path) -> TargetTrainingSpec:
    """Read and validate a training file; relative paths in it become absolute.

    Raises
    ------
    InputError
        With every problem found, each naming the key it is about.
    """
    path = Path(path)
    content = read_mapping(path, "training file", "docs/training.md shows one to start from")
    spec = parse_as(TargetTrainingSpec, content, str(path))
    with refusals(path, "YAML"):
        return with_absolute_paths(spec, path.resolve().parent)


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
