"""What a training file would train, and what it takes, before anything is loaded."""

from __future__ import annotations

from raymia.modalities.texts.shadow_training import shadow_trainings
from raymia.modalities.texts.target_training import resolve_target_training
from raymia.modalities.texts.training_estimate import estimate_training
from raymia.plan.training import TrainingPlan
from raymia.records.base import count_reasons
from raymia.spec.target_training import TargetTrainingSpec
from raymia.util.durations import duration


def planned_training(spec: TargetTrainingSpec) -> TrainingPlan:
    """Resolve a training and its shadows, and reckon what they take; loads no model.

    Raises
    ------
    InputError
        With every problem found.
    """
    found = resolve_target_training(spec)
    plan, counted = found.plan, found.counted
    shadows = [] if spec.shadows is None else shadow_trainings(found)
    expected = estimate_training(
        plan, counted, found.tokens, shadows=[shadow.plan for shadow in shadows], costs=spec.costs
    )
    rows = {
        "base": f"{plan.base.label} ({plan.base.describe()})",
        "method": plan.method.kind,
        "trained weights": "-"
        if counted.trained is None
        else f"{counted.trained:,} of {counted.all:,}",
        "records": f"{len(plan.members):,} members, {len(plan.held_out):,} held out",
        "loss": f"on {plan.training.loss_on}; at most {plan.training.max_length} tokens a record",
        "steps": f"{expected.steps:,} ({expected.steps_per_epoch:,} an epoch)",
    }
    more = {}
    if plan.workers > 1:
        size = spec.trainer.per_device_train_batch_size // plan.workers
        more["workers"] = (
            f"{plan.workers}, through Ray Train, each on {size} of a batch; memory is of each, "
            "time and cost of one"
        )
    if spec.shadows is not None:
        half = (len(plan.members) + len(plan.held_out)) // 2
        time = expected.shadow_seconds
        more["shadows"] = (
            f"{spec.shadows.count}, each on half of the records, about {half:,}; "
            f"engine {spec.shadows.engine}"
            + ("" if time is None else f"; {duration(time)} at least, one after another")
        )
    counts = count_reasons(one.reason for one in found.set_aside)
    lost = (f"{count} set aside: {reason}" for reason, count in counts.items())
    return TrainingPlan(
        spec.name,
        str(plan.out),
        rows,
        plan.privacy,
        expected,
        spec.costs,
        more,
        (*lost, *found.assumed),
    )
