"""The plan of an audit as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from raymia.inputs.base import Inputs
from raymia.inputs.compatibility import identical_models
from raymia.plan.estimate import AuditEstimate
from raymia.plan.stages import TargetPlan, by_name
from raymia.records.base import count_reasons
from raymia.report.alike import shorten
from raymia.report.estimate_table import estimate_table
from raymia.util.listing import listed


def plan_table(
    inputs: Inputs, plans: Sequence[TargetPlan], expected: AuditEstimate
) -> RenderableType:
    """What would be asked of which model; loads tokenizers, and no model."""
    spec, records = inputs.spec, inputs.records
    table = Table(title=f"Plan of audit {spec.name}", title_justify="left")
    table.add_column("stage", no_wrap=True)
    table.add_column("model", overflow="fold")
    # One model may have two parts, and is asked once: a target that is a reference as well.
    stages = by_name(stage for plan in plans for stage in plan.stages).values()
    shares = any(stage.shared for stage in stages)
    above = ["asked above"] * shares
    for heading in ("to ask", "stored", *above, inputs.modality.unit):
        table.add_column(heading, justify="right")
    amounts = inputs.modality.amounts(inputs, plans)
    rows = []
    resolved: dict[str, dict[str, None]] = {}
    notes = []
    for plan in plans:
        notes += [
            f"{one.stage_name(plan.name)}: {one.recipe.describe(plan.name)}"
            for one in plan.preparations
            if not one.ready
        ]
    for stage in stages:
        checkpoint, amount = stage.loader.checkpoint, amounts.of_stages[stage.name]
        row = (
            stage.name,
            "no model" if checkpoint is None else checkpoint.label,
            f"{stage.to_ask:,}",
            f"{stage.stored:,}",
            *([f"{stage.shared:,}"] * shares),
            "-" if amount is None else f"{amount:,.0f}",
        )
        rows.append(row)
        if checkpoint is not None:
            resolved.setdefault(checkpoint.describe(), {})[stage.name] = None
    for cells in shorten(rows, names=2):
        table.add_row(*cells)
    counts = (
        f"{records.count(True):,} members, {records.count(False):,} non-members, "
        f"{records.count(None):,} candidates; {len(records.set_aside):,} set aside; "
        f"attacks: {', '.join(a.label for a in inputs.attacks if inputs.runs(a))}"
    )
    facts = (f"{listed([*names])}: {what}" for what, names in resolved.items())
    prepared = (f"to prepare: {note}" for note in notes)
    reasons = count_reasons(one.reason for one in records.set_aside)
    aside = (f"{n} set aside: {reason}" for reason, n in reasons.items())
    same = identical_models(inputs)
    costs = estimate_table(expected, spec.costs)
    return Group(
        counts,
        *aside,
        table,
        *facts,
        *prepared,
        costs,
        *inputs.assumed,
        *inputs.noted,
        *amounts.noted,
        *inputs.left_out_lines(),
        *same,
    )
