"""How targets were trained: a section that the kind of the records says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from raymia.spec.base import Strict
from raymia.spec.images import ImageTrainingSpec
from raymia.spec.kinds import Kinds, KindsByName, RecordsSection, TrainingSection
from raymia.spec.training import TrainingSpec


class _Said(dict[str, Any]):
    """What an audit file says of a training, as it stands there, and the section that it is."""

    section: type[Strict] = TrainingSpec


def _which(value: Any) -> type[Strict]:
    return value.section if isinstance(value, _Said) else _Said.section


TRAININGS = KindsByName(_which, TrainingSpec, ImageTrainingSpec)
AnyTraining = Annotated[TrainingSection, TRAININGS]


def with_trainings(content: Any, records: Kinds[RecordsSection]) -> Any:
    """The content of an audit file, where each `training` is of the kind that the records are of.

    Parameters
    ----------
    records : kinds of them.
    """
    given = content.get("records") if isinstance(content, dict) else None
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    section = records.tagged(kind)
    if section is None:
        return content
    training = next((one for one in section.takes if issubclass(one, TrainingSection)), None)
    if training is None:
        return content
    content = _marked(content, training)
    if isinstance(targets := content.get("targets"), list):
        content = {**content, "targets": [_marked(target, training) for target in targets]}
    return content


def _marked(section: Any, training: type[Strict]) -> Any:
    said = section.get("training") if isinstance(section, Mapping) else None
    if not isinstance(said, dict):
        return section
    marked = _Said(said)
    marked.section = training
    return {**section, "training": marked}
