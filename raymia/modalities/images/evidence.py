"""The evidence on one target of images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.image import ImageEvidence, ImageShadowEvidence, Labels, LazyImages
from raymia.evidence.image import Images as Pixels
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.images.modality import Images, chooses_perturbation
from raymia.plan.stages import TargetPlan
from raymia.prepare.self_generated import SelfGeneratedRecipe, generated_images
from raymia.records.images import pixels_array, pixels_of
from raymia.scoring.evidence import Answers, Known, shadows_of
from raymia.util.lazily import Lazily


class OnImages:
    """See :class:`raymia.scoring.evidence.TargetEvidence`."""

    def __init__(
        self, inputs: Inputs, modality: Images, store: EvidenceStore, plan: TargetPlan
    ) -> None:
        attacks = [named.attack for named in inputs.attacks_on(plan.name)]
        self.spec, self.modality = inputs.spec, modality
        self.known = Known(inputs)
        records, count, shape = inputs.records, inputs.records.table.num_rows, modality.shape
        self.images = LazyImages(count, lambda: pixels_of(records.table["payload"], shape))
        ids = Lazily(count, lambda: records.ids)
        self.records = Answers(inputs, store, plan, ids)
        self.population: tuple[LazyImages, Answers] | None = None
        if any("population" in attack.needs for attack in attacks):
            others = inputs.population
            self.population = (
                LazyImages(len(others), lambda: pixels_array([*others.values()], shape)),
                Answers(inputs, store, plan, list(inputs.population), population=True),
            )
        self.shadows = [
            ImageShadowEvidence(self.records.references[name], is_in)
            for name, is_in in shadows_of(inputs, plan, ids)
        ]
        self.store, self.plan = store, plan
        self.shows_shadows = inputs.shows_shadows
        self.chosen = None
        if self.spec.neighbors is not None and not chooses_perturbation(self.spec):
            self.chosen = self.spec.neighbors.kind

    @cached_property
    def samples(self) -> Pixels | None:
        """What the target generated; read where an attack looks at it."""
        given = self.modality.samples.get(self.plan.name)
        return _generated(self.store, self.plan) if given is None else given

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> ImageEvidence:
        attack, population = named.attack, None
        if "population" in attack.needs and self.population is not None:
            images, answers = self.population
            population = ImageEvidence(images, answers.target, answers.against(named.reference))
        labels = None
        if self.modality.tells_labels(self.spec, attack):
            labels = Labels(self.known.is_member, self.known.units)
        return ImageEvidence(
            self.images,
            self.records.target,
            self.records.against(named.reference),
            shadows=self.shadows if self.shows_shadows(attack) else (),
            population=population,
            samples=self.samples if "generated_images" in attack.needs else None,
            labels=labels,
            labelled=self.known.labelled(found) if "other_scores" in attack.needs else None,
            chosen=self.chosen,
        )


def _generated(store: EvidenceStore, plan: TargetPlan) -> Pixels | None:
    """What the target generated for the first reference that is made of it."""
    for preparation in plan.preparations:
        if isinstance(preparation.recipe, SelfGeneratedRecipe):
            return generated_images(preparation.recipe, store)
    return None
