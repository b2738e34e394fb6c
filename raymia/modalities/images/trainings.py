"""Trainings on images: what a training file would train, and shadows of what was trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from raymia.modalities.images.training_estimate import estimate_lora
from raymia.plan.training import TrainingPlan
from raymia.prepare.image_shadows import TrainedOnImages
from raymia.prepare.shadows import FOLDER, Shadow, shadow_name
from raymia.prepare.text_split import TextSplit
from raymia.prepare.train_lora import resolve_lora
from raymia.prepare.trainer import Progress
from raymia.spec.image_training import LoraTrainingSpec
from raymia.storage.lease import held, new_run_id


def planned_training(spec: LoraTrainingSpec) -> TrainingPlan:
    """Resolve a training, and reckon what it takes; loads no model, and writes nothing.

    Raises
    ------
    InputError
        For anything wrong in what was given.
    """
    plan = resolve_lora(spec)
    lora, settings, split = plan.lora, plan.settings, plan.split
    rows = {
        "base": f"{plan.base.label} ({plan.base.describe()})",
        "method": f"{spec.method.kind}, rank {lora['r']}, alpha {lora['lora_alpha']}, on "
        f"{', '.join(lora['target_modules'])}",
        "trained weights": f"{plan.trained_weights:,}",
        "images": f"{len(split.members):,} members, {len(split.held_out):,} held out, "
        f"{plan.set_aside:,} that could not be used",
        "steps": f"{settings.steps:,} of {settings.batch_size:,} images each",
    }
    expected = estimate_lora(plan, spec.costs)
    return TrainingPlan(spec.name, spec.output, rows, plan.privacy, expected, spec.costs)


def shadows_of(manifest: Path, count: int) -> list[Shadow]:
    """Shadows of a target that was trained as its manifest says, to be trained."""
    target = TrainedOnImages(manifest)
    shadows = []
    for number, half in enumerate(target.halves(count)):
        name = shadow_name(number)
        out = target.folder / FOLDER / name
        train = partial(_train, manifest.resolve(), out, number, half)
        finished = partial(target.finished, out, number, half)
        shadows.append(Shadow(name, half, train, finished, target.notes))
    return shadows


def _train(manifest: Path, out: Path, number: int, half: TextSplit, progress: Progress) -> None:
    with held(str(out), new_run_id()):
        TrainedOnImages(manifest).train(out, number, half, progress)
