"""Reading a training file: YAML to what the kind of its records says that a training is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from raymia.spec.file import learn_records, parse_as, read_mapping
from raymia.spec.kinds import TrainingFile, tags_of
from raymia.spec.paths import with_absolute_paths
from raymia.spec.records import RECORDS, TextRecordsSpec, section_of
from raymia.storage.manifest import MANIFEST_FILE
from raymia.storage.refusals import refusals
from raymia.util.errors import InputError
from raymia.util.listing import listed


def is_training_file(path: Path) -> bool:
    """Whether a file is one of a training; not so one that cannot be read."""
    try:
        content = read_mapping(path, "training file", "")
    except InputError:
        return False
    return "base" in content and not {"targets", "checkpoints"} & {*content}


def load_training(path: str | Path, plugins: Iterable[str] = ()) -> TrainingFile:
    """Read and validate a training file; relative paths in it become absolute.

    Parameters
    ----------
    plugins : files and modules that may register its kind of records.

    Raises
    ------
    InputError
        With every problem found, each naming the key it is about.
    """
    path = Path(path)
    content = read_mapping(path, "training file", "docs/training.md shows one to start from")
    if path.name == MANIFEST_FILE and "checkpoints" in content:
        raise InputError(
            f"{path}: the manifest of a training that is done; give `raymia audit` or `plan` the "
            "manifest, and `raymia train` the training file"
        )
    learn_records(content, plugins)
    section = section_of(content) or TextRecordsSpec
    if section.training_file is None:
        trained = (tags_of(one) for one in RECORDS.sections if one.training_file is not None)
        raise InputError(
            f"{path}: records.kind: no model is trained on {section.what}; there are trainings on "
            f"records of kind {listed(sorted(set().union(*trained)))}"
        )
    with refusals(path, "YAML"):
        folder = path.resolve().parent
    return with_absolute_paths(parse_as(section.training_file, content, str(path)), folder)
