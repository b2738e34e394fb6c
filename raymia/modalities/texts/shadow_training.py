"""The shadows of a training: the same training, on random halves of its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from raymia.modalities.texts.run_training import finished, train_resolved
from raymia.modalities.texts.target_training import (
    ResolvedTraining,
    plan_training,
    resolve_target_training,
)
from raymia.models.causal.rendering import TrainedReader
from raymia.models.source import bring, origins_of
from raymia.models.tokenizers import tokenizer_of
from raymia.prepare.shadows import FOLDER, Shadow, shadow_name
from raymia.prepare.text_split import Record, TextSplit, draw_halves
from raymia.prepare.train_target import train_target
from raymia.prepare.trainer import Progress
from raymia.shift.copies import copied_texts
from raymia.spec.target_training import SplitSpec, TargetTrainingSpec, WorkersSpec
from raymia.util.draws import generator
from raymia.util.errors import InputError


def shadows(spec: TargetTrainingSpec) -> list[Shadow]:
    """The shadows that a training file asks for, to be trained.

    Raises
    ------
    InputError
        If it asks for none, or for anything wrong in it.
    """
    if spec.shadows is None:
        raise InputError("shadows: the training file asks for none; say `shadows: {count: 8}`")
    return [
        Shadow(one.spec.name, one.split, _training(one), partial(finished, one))
        for one in shadow_trainings(resolve_target_training(spec))
    ]


def _training(resolved: ResolvedTraining) -> Callable[[Progress], None]:
    origins = origins_of([resolved.plan.base])

    def train(progress: Progress) -> None:
        bring(origins)
        train_resolved(resolved, partial(train_target, resolved.plan, progress))

    return train


def shadow_trainings(resolved: ResolvedTraining) -> list[ResolvedTraining]:
    """The trainings of the shadows that a training file asks for.

    The halves are drawn of all records that the target was drawn from, and each shadow has a seed
    of its own. Only the last checkpoint of each is kept, unless checkpoints are compared to stop.

    Raises
    ------
    InputError
        If the file asks for none, or a half is too small to train on.
    """
    spec = resolved.spec
    assert spec.shadows is not None, "the caller looks"
    pool = (*resolved.split.members, *resolved.split.held_out)
    halves = draw_halves(pool, spec.shadows.count, spec.seed, _alike(resolved, pool))
    return [_shadow(resolved, number, half) for number, half in enumerate(halves)]


def _alike(resolved: ResolvedTraining, pool: Sequence[Record]) -> list[list[str]]:
    """Ids of records that are nearly alike, as far as their groups do not say so already: those of
    a split that was drawn do."""
    spec, plan = resolved.spec, resolved.plan
    if spec.records.files or spec.split.near_repetitions == "apart":
        return []
    reader = TrainedReader(tokenizer_of(plan.base), plan.training)
    clusters = copied_texts([reader.text(record.payload) for record in pool])
    return [[pool[row].id for row in cluster] for cluster in clusters]


def _shadow(resolved: ResolvedTraining, number: int, half: TextSplit) -> ResolvedTraining:
    spec, name = resolved.spec, shadow_name(number)
    trainer = spec.trainer
    if trainer.early_stopping_patience is None:
        trainer = trainer.model_copy(update={"save_strategy": "no", "save_steps": None})
    records = spec.records
    given = records.files or [*records.members, *records.held_out]
    own: TargetTrainingSpec = spec.model_copy(
        update={
            "name": f"{spec.name[:60]}-{name}",
            "output": str(Path(spec.output) / FOLDER / name),
            "seed": int(generator(spec.seed, "seed of a shadow", number).integers(2**31)),
            "records": records.model_copy(update={"files": given, "members": [], "held_out": []}),
            "split": SplitSpec(near_repetitions=spec.split.near_repetitions),
            "trainer": trainer,
            "resources": WorkersSpec(),
            "shadows": None,
        }
    )
    base, training = resolved.plan.base, resolved.plan.training
    plan = plan_training(own, base, training, half, resolved.lengths, "shadows")
    return replace(resolved, spec=own, plan=plan, split=half)
