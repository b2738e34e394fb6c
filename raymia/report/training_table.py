"""A training, before and after it, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from raymia.plan.training import TrainingEstimate
from raymia.prepare.private import Privacy
from raymia.prepare.train_lora import ResolvedLora
from raymia.prepare.train_target import TargetTraining
from raymia.prepare.tuning import Counted
from raymia.records.base import SetAside, count_reasons
from raymia.spec.prices import CostsSpec
from raymia.spec.target_training import TargetTrainingSpec
from raymia.util.durations import duration


def training_plan_table(
    spec: TargetTrainingSpec,
    plan: TargetTraining,
    counted: Counted,
    expected: TrainingEstimate,
    aside: Sequence[SetAside],
    assumed: Sequence[str],
) -> RenderableType:
    """What would be trained on what, and what it will take."""
    table = Table(title=f"Plan of training {spec.name}", title_justify="left", show_header=False)
    shown = "-" if counted.trained is None else f"{counted.trained:,} of {counted.all:,}"
    rows = {
        "base": f"{plan.base.label} ({plan.base.describe()})",
        "method": plan.method.kind,
        "trained weights": shown,
        "records": f"{len(plan.members):,} members, {len(plan.held_out):,} held out",
        "loss": f"on {plan.training.loss_on}; at most {plan.training.max_length} tokens a record",
        "steps": f"{expected.steps:,} ({expected.steps_per_epoch:,} an epoch)",
        "privacy": "-" if plan.privacy is None else _private(plan.privacy),
        **_taken(expected),
        "output": str(plan.out),
    }
    if plan.workers > 1:
        size = spec.trainer.per_device_train_batch_size // plan.workers
        rows["workers"] = (
            f"{plan.workers}, through Ray Train, each on {size} of a batch; memory is of each, "
            "time and cost of one"
        )
    if spec.shadows is not None:
        half = (len(plan.members) + len(plan.held_out)) // 2
        time = expected.shadow_seconds
        rows["shadows"] = (
            f"{spec.shadows.count}, each on half of the records, about {half:,}; "
            f"engine {spec.shadows.engine}"
            + ("" if time is None else f"; {duration(time)} at least, one after another")
        )
    for what, value in {**rows, **_paid(expected, spec.costs)}.items():
        table.add_row(what, value)
    counts = count_reasons(one.reason for one in aside)
    lost = (f"{n} set aside: {reason}" for reason, n in counts.items())
    return Group(table, *lost, *assumed)


def _taken(expected: TrainingEstimate) -> dict[str, str]:
    held, seconds = expected.memory, expected.seconds
    return {
        "memory": "-" if held is None else f"about {held / 2**30:,.2f} GiB",
        "time": "-" if seconds is None else f"{duration(seconds)} at least, here",
    }


def _paid(expected: TrainingEstimate, costs: CostsSpec | None) -> dict[str, str]:
    rows = {}
    if expected.hours is not None:
        rows["machine hours"] = f"{expected.hours:,.2f} at least"
    if costs is not None:
        rows["cost"] = (
            "this machine has no price under costs.per_hour"
            if expected.cost is None
            else f"{expected.cost:,.2f} {costs.currency} at least"
        )
    return rows


def _private(privacy: Privacy) -> str:
    spec = privacy.spec
    return (
        f"epsilon {privacy.spent(privacy.steps):.3g} of {spec.epsilon:g} at a delta of "
        f"{spec.delta:g}; noise of {privacy.noise_multiplier:.3g} x {spec.max_grad_norm:g}"
    )


def lora_plan_table(plan: ResolvedLora, expected: TrainingEstimate) -> RenderableType:
    """What LoRA would be trained on which images."""
    spec, lora = plan.spec, plan.lora
    modules = ", ".join(lora["target_modules"])
    table = Table(title=f"Plan of training {spec.name}", title_justify="left", show_header=False)
    rows = {
        "base": f"{plan.base.label} ({plan.base.describe()})",
        "method": f"{spec.method.kind}, rank {lora['r']}, alpha {lora['lora_alpha']}, on {modules}",
        "trained weights": f"{plan.trained_weights:,}",
        "images": f"{len(plan.split.members):,} members, {len(plan.split.held_out):,} held out, "
        f"{plan.set_aside:,} that could not be used",
        "steps": f"{plan.settings.steps:,} of {plan.settings.batch_size:,} images each",
        "privacy": "-" if plan.privacy is None else _private(plan.privacy),
        **_taken(expected),
        "output": spec.output,
        **_paid(expected, spec.costs),
    }
    for what, value in rows.items():
        table.add_row(what, value)
    return table


def trained_table(manifest: Mapping[str, Any]) -> RenderableType:
    """The checkpoints of a training with their losses."""
    table = Table(title=f"Training {manifest['name']}", title_justify="left")
    table.add_column("checkpoint")
    unit = "epoch" if "epoch" in manifest["checkpoints"][0] else "step"
    for heading in (unit, "loss of members", "held-out loss"):
        table.add_column(heading, justify="right")
    for one in manifest["checkpoints"]:
        losses = (one["train_loss"], one["held_out_loss"])
        table.add_row(
            one["folder"],
            f"{one[unit]:g}",
            *("-" if loss is None else f"{loss:.3f}" for loss in losses),
        )
    return table
