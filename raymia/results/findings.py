"""What a run found about single records beyond scores, for the report to show."""

from __future__ import annotations

from dataclasses import dataclass, field

from raymia.results.image_result import ImageExample, MeanFluctuation, PerturbationChoice
from raymia.results.text_result import TextExample


@dataclass(frozen=True)
class Findings:
    """Fields of :class:`raymia.results.result.RunResult` by the same names, each filled by the
    modalities it fits."""

    text_examples: list[TextExample] = field(default_factory=list)
    image_examples: list[ImageExample] = field(default_factory=list)
    perturbation_choices: list[PerturbationChoice] = field(default_factory=list)
    mean_fluctuations: list[MeanFluctuation] = field(default_factory=list)
