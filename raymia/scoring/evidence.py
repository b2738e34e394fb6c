"""The evidence on one target, handed to each attack as far as it needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.image import ImageEvidence, ImageShadowEvidence, Labels
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import LabelledScores, ShadowEvidence, TextEvidence
from raymia.inputs.base import Inputs
from raymia.modalities.base import model_evidence
from raymia.models.source import Checkpoint
from raymia.plan.planning import Stage, TargetPlan
from raymia.prepare.corpus import token_counts
from raymia.prepare.self_generated import SelfGeneratedRecipe, generated_images
from raymia.records.base import RecordSet
from raymia.records.images import pixels_array


class TargetEvidence(Protocol):
    """Everything that was answered about one target's audit."""

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> Any:
        """What an attack may look at.

        Parameters
        ----------
        found : scores of the attacks before it, by label, for attacks that combine.
        """


def evidence_on(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> TargetEvidence:
    """Read what is stored on one target."""
    kind = _OnTexts if inputs.shape is None else _OnImages
    return kind(inputs, store, plan)


class _Answers:
    """What a target and its references answered on some records."""

    def __init__(self, store: EvidenceStore, plan: TargetPlan, ids: Sequence[str]) -> None:
        self.target = _of_stage(plan.target, store, ids)
        self.references = {
            name: _of_stage(stage, store, ids) for name, stage in plan.references.items()
        }

    def against(self, reference: str | None) -> Any:
        return None if reference is None else self.references[reference]


class _Known:
    """What is known of the records beside the evidence."""

    def __init__(self, inputs: Inputs) -> None:
        self.is_member = inputs.records.table["is_member"].to_pylist()
        self.units = units(inputs.records)
        self.combined = {named.label for named in inputs.attacks if named.attack.combines}

    def labelled(self, found: Mapping[str, Scores]) -> LabelledScores:
        published = {label: s for label, s in found.items() if label not in self.combined}
        return LabelledScores(published, self.is_member, self.units)


class _OnTexts:
    def __init__(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> None:
        attacks = [named.attack for named in inputs.attacks_on(plan.name)]
        self.known = _Known(inputs)
        ids = inputs.records.ids
        self.texts = inputs.records.table["payload"].to_pylist()
        self.records = _Answers(store, plan, ids)
        self.population: tuple[list[str], _Answers] | None = None
        if any(attack.uses_population for attack in attacks):
            texts = list(inputs.population.values())
            self.population = (texts, _Answers(store, plan, list(inputs.population)))
        self.corpus = None
        checkpoint, corpus = inputs.targets[plan.name], inputs.spec.corpus
        if corpus and isinstance(checkpoint, Checkpoint) and any(a.uses_corpus for a in attacks):
            self.corpus = token_counts(corpus, checkpoint, store)
        self.shadows = [
            ShadowEvidence(self.records.references[name], is_in)
            for name, is_in in _shadows(inputs, plan)
        ]

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> TextEvidence:
        attack, population = named.attack, None
        if attack.uses_population and self.population is not None:
            texts, answers = self.population
            population = TextEvidence(texts, answers.target, answers.against(named.reference))
        return TextEvidence(
            self.texts,
            self.records.target,
            self.records.against(named.reference),
            shadows=self.shadows if attack.uses_shadows else (),
            population=population,
            corpus=self.corpus if attack.uses_corpus else None,
            labelled=self.known.labelled(found) if attack.combines else None,
        )


class _OnImages:
    def __init__(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> None:
        assert inputs.shape is not None
        attacks = [named.attack for named in inputs.attacks_on(plan.name)]
        self.known = _Known(inputs)
        self.images = pixels_array(inputs.records.table["payload"].to_pylist(), inputs.shape)
        self.records = _Answers(store, plan, inputs.records.ids)
        self.population: tuple[Any, _Answers] | None = None
        if any(attack.uses_population for attack in attacks):
            others = pixels_array(list(inputs.population.values()), inputs.shape)
            self.population = (others, _Answers(store, plan, list(inputs.population)))
        self.shadows = [
            ImageShadowEvidence(self.records.references[name], is_in)
            for name, is_in in _shadows(inputs, plan)
        ]
        self.samples = None
        if any(attack.uses_samples for attack in attacks):
            given = inputs.samples.get(plan.name)
            self.samples = (
                _samples(store, plan) if given is None else pixels_array(given, inputs.shape)
            )
        self.inputs = inputs
        self.chosen = None
        if inputs.spec.neighbors is not None and not inputs.chooses_perturbation:
            self.chosen = inputs.spec.neighbors.kind

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> ImageEvidence:
        attack, population = named.attack, None
        if attack.uses_population and self.population is not None:
            images, answers = self.population
            population = ImageEvidence(images, answers.target, answers.against(named.reference))
        labels = Labels(self.known.is_member, self.known.units)
        sees_labels = attack.learns or (
            self.inputs.chooses_perturbation and "neighbors" in attack.asks
        )
        return ImageEvidence(
            self.images,
            self.records.target,
            self.records.against(named.reference),
            shadows=self.shadows if self.inputs.shows_shadows(attack) else (),
            population=population,
            samples=self.samples if attack.uses_samples else None,
            labels=labels if sees_labels else None,
            labelled=self.known.labelled(found) if attack.combines else None,
            chosen=self.chosen,
        )


def _of_stage(stage: Stage, store: EvidenceStore, ids: Sequence[str]) -> Any:
    answers = ((p.question, p.probe, store.read(p.key)) for p in stage.probes)
    return model_evidence(stage.loader.checkpoint, answers, ids)


def _shadows(inputs: Inputs, plan: TargetPlan) -> list[tuple[str, Any]]:
    """The shadows that were asked, each with which records it was trained on."""
    return [
        (name, np.array([i in members for i in inputs.records.ids]))
        for name, members in inputs.shadow_members.items()
        if name in plan.references
    ]


def _samples(store: EvidenceStore, plan: TargetPlan) -> Any:
    """What the target generated for the first reference that is made of it."""
    for preparation in plan.preparations:
        if isinstance(preparation.recipe, SelfGeneratedRecipe):
            return generated_images(preparation.recipe, store)
    return None


def units(records: RecordSet) -> list[str]:
    """What must not be split between what is fitted and what is judged: a record's group, or the
    record."""
    return list(unit_column(records).to_pylist())


def unit_column(records: RecordSet) -> pa.ChunkedArray:
    """The units as a column."""
    groups = records.table["group"]
    named = pc.binary_join_element_wise("group", groups, " ")
    return pc.if_else(pc.is_valid(groups), named, records.table["record_id"])
