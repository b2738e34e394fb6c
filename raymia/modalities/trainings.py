"""The kind of records that a training is on."""

from __future__ import annotations

from pathlib import Path

from raymia.inputs.modality import Modality, modality_of
from raymia.spec import RecordsSection, TrainingFile
from raymia.spec.from_training import read_training
from raymia.spec.kinds import tags_of
from raymia.spec.records import RECORDS


def modality_trained_by(training: TrainingFile) -> type[Modality]:
    """The modality whose models a training file trains."""
    return _modality(next(s for s in RECORDS.sections if s.training_file is type(training)))


def modality_trained(manifest: Path, where: str) -> type[Modality]:
    """The modality whose models were trained, as a manifest says; see :func:`read_training`."""
    _, section = read_training(manifest, where)
    return _modality(section)


def _modality(section: type[RecordsSection]) -> type[Modality]:
    (kind,) = tags_of(section)
    return modality_of(kind)
