"""A training, before and after it, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from raymia.plan.training import TrainingEstimate, TrainingPlan
from raymia.prepare.private import Privacy
from raymia.spec.prices import CostsSpec
from raymia.util.durations import duration


def training_plan_table(plan: TrainingPlan) -> RenderableType:
    """What would be trained on what, and what it will take."""
    table = Table(title=f"Plan of training {plan.name}", title_justify="left", show_header=False)
    rows = {
        **plan.rows,
        "privacy": "-" if plan.privacy is None else _private(plan.privacy),
        **_taken(plan.expected),
        "output": plan.output,
        **plan.more,
        **_paid(plan.expected, plan.costs),
    }
    for what, value in rows.items():
        table.add_row(what, value)
    return Group(table, *plan.notes)


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
