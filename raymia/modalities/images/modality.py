"""All that is different for images.

What a step needs is imported where the step is taken: to be known, a modality loads no library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raymia.inputs.modality import Amounts, Modality, register, sums_of
from raymia.spec import (
    ImageNeighbors,
    ImageRecordsSpec,
    RecordsSection,
    SelfGeneratedReference,
    TrainingFile,
)
from raymia.spec.image_training import LoraTrainingSpec
from raymia.util.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from raymia.attacks import Attack, NamedAttack
    from raymia.attacks.base import Scores
    from raymia.evidence.image import ImageModelEvidence
    from raymia.evidence.store import EvidenceStore
    from raymia.inputs.base import Inputs, Problems
    from raymia.metrics.summary import Metrics
    from raymia.models.checkpoint import AnyCheckpoint
    from raymia.models.image_source import ImageCheckpoint
    from raymia.plan.stages import TargetPlan
    from raymia.plan.training import TrainingPlan
    from raymia.prepare.self_generated import SelfGeneratedRecipe
    from raymia.prepare.shadows import Shadow
    from raymia.prepare.trainer import Together
    from raymia.results.findings import Findings
    from raymia.scoring.evidence import TargetEvidence
    from raymia.scoring.exposed import ScoreColumns
    from raymia.shift.images import AnyImages
    from raymia.shift.images import Images as Pixels
    from raymia.spec import AuditSpec
    from raymia.spec.images import Shape


def chooses_perturbation(spec: AuditSpec) -> bool:
    """Whether attacks choose among several perturbations."""
    return isinstance(spec.neighbors, ImageNeighbors) and spec.neighbors.kind == "auto"


@register
@dataclass(frozen=True)
class Images(Modality):
    """Images, scored against diffusion models, autoencoders and pixel models.

    Attributes
    ----------
    shape : channels, height and width of all images, as the models take them.
    samples : images that targets generated of which no more is given, by target, uint8 [samples,
        channels, height, width]; one that was given several times is there so many times.
    prompts : captions that targets generate images of, by the reference that is made of them.
    read_otherwise : references as they are asked for targets that were trained otherwise than the
        first, by their name and the target's.
    """

    section = ImageRecordsSpec
    loss_question = "terms"
    unit = "passes of images"
    libraries = ("diffusers", "kornia", "pillow")

    shape: Shape
    samples: Mapping[str, Pixels] = field(default_factory=dict)
    prompts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    read_otherwise: Mapping[tuple[str, str], ImageCheckpoint] = field(default_factory=dict)

    @classmethod
    def resolve(
        cls,
        spec: AuditSpec,
        places: Sequence[str],
        attacks: list[NamedAttack],
        problems: Problems,
    ) -> Inputs:
        from raymia.modalities.images.inputs import resolve_images

        assert isinstance(spec.records, ImageRecordsSpec)
        return resolve_images(spec, places, spec.records, attacks, problems)

    @classmethod
    def named_in(cls, section: RecordsSection, path: str) -> Iterable[str]:
        from raymia.records.image_files import named_in_table

        assert isinstance(section, ImageRecordsSpec)
        return named_in_table(path, section.image_column)

    @classmethod
    def planned_training(cls, training: TrainingFile) -> TrainingPlan:
        from raymia.modalities.images.trainings import planned_training

        assert isinstance(training, LoraTrainingSpec)
        return planned_training(training)

    @classmethod
    def train(cls, training: TrainingFile, together: Together) -> dict[str, Any]:
        from raymia.prepare.train_lora import run_lora_training

        del together  # one worker trains
        assert isinstance(training, LoraTrainingSpec)
        return run_lora_training(training)

    @classmethod
    def shadows(cls, training: TrainingFile, where: str) -> list[Shadow]:
        del training
        raise InputError(f"{where}: records.kind: it is of images, and texts are expected")

    @classmethod
    def shadows_of(cls, manifest: Path, count: int) -> list[Shadow]:
        from raymia.modalities.images.trainings import shadows_of

        return shadows_of(manifest, count)

    def recipe(self, inputs: Inputs, reference: str, target: str) -> SelfGeneratedRecipe:
        from raymia.modalities.images.generation import choose_captions, has_adapter
        from raymia.models.image_source import ImageModel
        from raymia.prepare.self_generated import SelfGeneratedRecipe

        spec, maker = inputs.spec.references[reference], inputs.targets[target]
        assert isinstance(spec, SelfGeneratedReference)
        assert isinstance(maker, ImageModel), "of samples none is used"
        # The base of an adapter is the target's own, whether it is named or not.
        own = spec.base is None or has_adapter(maker)
        base = None if own else self.reference_for(inputs, str(spec.base), target)
        assert base is None or isinstance(base, ImageModel)
        captions = choose_captions(maker, spec, self.prompts.get(reference, ()))
        return SelfGeneratedRecipe(maker, base, spec, inputs.spec.seed, captions)

    def reference_for(self, inputs: Inputs, name: str, target: str) -> AnyCheckpoint:
        return self.read_otherwise.get((name, target), inputs.references[name])

    def evidence_on(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> TargetEvidence:
        from raymia.modalities.images.evidence import OnImages

        return OnImages(inputs, self, store, plan)

    def score_by_loss(self, evidence: ImageModelEvidence) -> Scores:
        from raymia.attacks.images.base import mean_error

        return -mean_error(evidence.terms, "loss")

    def for_guessers(self, payloads: Sequence[Any]) -> tuple[list[str], AnyImages | None]:
        import numpy as np

        from raymia.records.images import pixels_array
        from raymia.shift.images import ImagesOneByOne

        def read(row: int) -> Pixels:
            image: Pixels = pixels_array([payloads[row]], self.shape)[0]
            return image

        captions = [payload["caption"] or "" for payload in payloads]
        return captions, ImagesOneByOne(np.arange(len(payloads)), read)

    def tells_labels(self, spec: AuditSpec, attack: Attack) -> bool:
        return "labels" in attack.needs or (
            chooses_perturbation(spec) and "neighbors" in attack.asks
        )

    def amounts(self, inputs: Inputs, plans: Sequence[TargetPlan]) -> Amounts:
        del inputs
        stages = (stage for plan in plans for stage in plan.stages)
        return Amounts(
            sums_of(
                (stage.name, sum(one.to_ask * one.question.passes for one in stage.questions))
                for stage in stages
            )
        )

    def look(
        self,
        inputs: Inputs,
        store: EvidenceStore,
        plans: Sequence[TargetPlan],
        scores: ScoreColumns,
        metrics: Sequence[Metrics],
    ) -> Findings:
        from raymia.modalities.images.shown import look_at_images

        return look_at_images(inputs, store, plans, scores, metrics)
