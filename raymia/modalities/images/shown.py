"""What a run found about images beyond scores: examples as pictures, and the loss around them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raymia.attacks import NamedAttack
from raymia.attacks.images.fluctuation import Around, Choice, choose_perturbation, fluctuation
from raymia.evidence.image import Floats, ImageEvidence
from raymia.evidence.image import Images as Pixels
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.metrics.summary import Metrics
from raymia.modalities.images.modality import Images, chooses_perturbation
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.plan.stages import PlannedQuestion, Stage, TargetPlan
from raymia.questions.base import Item
from raymia.records.pixels import as_picture
from raymia.results.findings import Findings
from raymia.results.image_result import Changes, ImageExample, MeanFluctuation, PerturbationChoice
from raymia.scoring.exposed import Leaders, ScoreColumns, shown_records
from raymia.spec.images import Shape

LARGEST_RECORD, LARGEST_NEIGHBOR = 256, 128
"""Pixels of the longer side beyond which a picture is scaled down."""


@dataclass(frozen=True)
class _OnCpu:
    """All that a question wants of a model to make neighbors."""

    shape: Shape
    device: str = "cpu"


@dataclass(frozen=True)
class _Around:
    """What is around a target's records.

    Attributes
    ----------
    planned : the question about the neighbors that are shown.
    changes : of the loss, the mean over draws, float64 [records, timesteps, strengths].
    timesteps : empty for a model without any.
    spent : bool [records], those that the perturbation was chosen on.
    """

    planned: PlannedQuestion
    changes: Floats
    timesteps: list[float]
    spent: npt.NDArray[np.bool_]

    @property
    def perturbation(self) -> str:
        return self.planned.label.partition(".")[2]

    @property
    def strengths(self) -> list[float]:
        question: Any = self.planned.question
        return [float(strength) for strength in question.neighborhood.strengths]


def look_at_images(
    inputs: Inputs,
    store: EvidenceStore,
    plans: Sequence[TargetPlan],
    scores: ScoreColumns,
    metrics: Sequence[Metrics],
) -> Findings:
    """Take pictures of the records that an auditor looks at first, on the most exposed targets.

    Of at most three targets, four records each; which these are is in
    :func:`raymia.scoring.exposed.shown_records`. What attacks chose to perturb images with is
    told for every target.

    Parameters
    ----------
    plans : after the run.
    scores : of all targets.
    metrics : of these scores.
    """
    findings = Findings()
    leaders = Leaders(inputs, [plan.name for plan in plans], metrics)
    for plan in plans:
        if plan.name not in leaders.shown and not chooses_perturbation(inputs.spec):
            continue
        evidence, choice = _evidence_around(inputs, store, plan)
        if choice is not None:
            findings.perturbation_choices.append(_choice_card(plan.name, choice))
        if plan.name in leaders.shown:
            leader = leaders.on(plan.name, scores)
            around = _around(inputs, plan, leader, evidence, choice)
            findings.image_examples.extend(_examples(inputs, plan.name, leader, scores, around))
            if around is not None:
                findings.mean_fluctuations.extend(_mean(inputs, plan.name, around))
    return findings


def _evidence_around(
    inputs: Inputs, store: EvidenceStore, plan: TargetPlan
) -> tuple[ImageEvidence | None, Choice | None]:
    """What attacks on neighbors see of a target, and the perturbation they chose, if they did."""
    attacks = [a.attack for a in inputs.attacks_on(plan.name) if isinstance(a.attack, Around)]
    if not attacks:
        return None, None
    choosing = [attack for attack in attacks if attack.perturbation is None]
    chooses = bool(choosing) and chooses_perturbation(inputs.spec)
    attack = choosing[0] if choosing else attacks[0]
    shadows = inputs.shadow_members if chooses else {}
    narrow = replace(
        plan,
        preparations=(),
        target=_about_neighbors(plan.target),
        references={
            name: _about_neighbors(stage)
            for name, stage in plan.references.items()
            if name in shadows
        },
    )
    named = NamedAttack(attack.name, attack, reference=None)
    evidence: ImageEvidence = inputs.modality.evidence_on(inputs, store, narrow).given_to(named, {})
    return evidence, choose_perturbation(evidence) if chooses else None


def _about_neighbors(stage: Stage) -> Stage:
    """A stage with those of its questions alone that its loss around a record is read from."""
    wanted = (p for p in stage.questions if p.label.partition(".")[0] in Around.asks)
    return replace(stage, questions=tuple(wanted))


def _around(
    inputs: Inputs,
    plan: TargetPlan,
    leader: NamedAttack,
    evidence: ImageEvidence | None,
    choice: Choice | None,
) -> _Around | None:
    """What is shown around records: what the leading attack looked at, else the audit's own."""
    if evidence is None or evidence.target is None:
        return None
    own = leader.attack.perturbation if isinstance(leader.attack, Around) else None
    audits = evidence.chosen if choice is None else choice.perturbation
    perturbation = own or audits or next(iter(evidence.target.neighbors))
    planned = next(p for p in plan.target.questions if p.label == f"neighbors.{perturbation}")
    changes = fluctuation(evidence.target, perturbation).mean(axis=-1)
    checkpoint = inputs.targets[plan.name]
    has_steps = isinstance(checkpoint, DenoiserCheckpoint)
    return _Around(
        planned,
        np.moveaxis(changes, 1, 2),
        list(evidence.target.terms.timesteps) if has_steps else [],
        np.zeros(len(changes), bool) if choice is None else choice.spent,
    )


def _choice_card(target: str, choice: Choice) -> PerturbationChoice:
    return PerturbationChoice(
        target=target,
        perturbation=choice.perturbation,
        aucs={name: None if np.isnan(auc) else auc for name, auc in choice.aucs.items()},
        fitted_on=choice.fitted_on,
        spent=int(choice.spent.sum()),
    )


def _mean(inputs: Inputs, target: str, around: _Around) -> Iterator[MeanFluctuation]:
    """The mean over members and over non-members that have all evidence and were not spent."""
    labels = inputs.records.table["is_member"].to_pylist()
    whole = ~np.isnan(around.changes).any(axis=(1, 2)) & ~around.spent
    of = {
        label: around.changes[whole & np.array([known is label for known in labels], bool)]
        for label in (True, False)
    }
    if any(map(len, of.values())):
        yield MeanFluctuation(
            target=target,
            perturbation=around.perturbation,
            strengths=around.strengths,
            timesteps=around.timesteps,
            members=_changes(of[True].mean(axis=0)) if len(of[True]) else [],
            non_members=_changes(of[False].mean(axis=0)) if len(of[False]) else [],
            n_members=len(of[True]),
            n_non_members=len(of[False]),
        )


def _examples(
    inputs: Inputs, target: str, leader: NamedAttack, scores: ScoreColumns, around: _Around | None
) -> Iterator[ImageExample]:
    """The records to look at, by falling score."""
    shape = _shape(inputs)
    payloads = inputs.records.table["payload"]
    for shown in shown_records(inputs, target, leader, scores.column(target, leader.label)):
        payload = payloads[shown.row].as_py()
        picture = png(_pixels(payload, shape), LARGEST_RECORD)
        example = ImageExample(**shown.card, image=picture)
        if around is not None:
            example = _with_neighbors(example, shown.row, payload, around, shape)
        yield example


def _shape(inputs: Inputs) -> Shape:
    assert isinstance(inputs.modality, Images)
    return inputs.modality.shape


def _with_neighbors(
    example: ImageExample, row: int, payload: Any, around: _Around, shape: Shape
) -> ImageExample:
    """An example with its neighbors as the question makes them, and the loss around it."""
    question: Any = around.planned.question
    items = [Item(example.record_id, index, payload) for index in question.indices()]
    made = question.images(_OnCpu(shape), items)
    pixels: Pixels = (made * 255).round().to(torch.uint8).numpy()
    return example.model_copy(
        update={
            "perturbation": around.perturbation,
            "strengths": around.strengths,
            "neighbors": [png(image, LARGEST_NEIGHBOR) for image in pixels],
            "timesteps": around.timesteps,
            "fluctuation": _changes(around.changes[row]),
        }
    )


def _changes(values: Floats) -> Changes:
    return [[None if np.isnan(value) else float(value) for value in row] for row in values]


def _pixels(payload: Any, shape: Shape) -> Pixels:
    return np.frombuffer(payload["pixels"], np.uint8).reshape(shape)


def png(pixels: Pixels, largest: int) -> str:
    """A picture as a PNG in base64, pixel by pixel unless a side is larger than ``largest``.

    Parameters
    ----------
    pixels : uint8 [channels, height, width], one channel or three.
    """
    from PIL import Image

    image = as_picture(pixels)
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
