"""The plan of an audit as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from raymia.inputs.base import Inputs
from raymia.inputs.compatibility import identical_models
from raymia.plan.estimate import Estimate
from raymia.plan.planning import TargetPlan, tokens_per_record
from raymia.records.base import count_reasons
from raymia.report.estimate_table import estimate_table
from raymia.spec import SelfGeneratedReference


def plan_table(inputs: Inputs, plans: Sequence[TargetPlan], expected: Estimate) -> RenderableType:
    """What would be asked of which model; loads tokenizers, and no model."""
    spec, records = inputs.spec, inputs.records
    texts = records.table["payload"]
    table = Table(title=f"Plan of audit {spec.name}", title_justify="left")
    table.add_column("stage", no_wrap=True)
    table.add_column("model", overflow="fold")
    of_images = inputs.shape is not None
    unit = "passes of images" if of_images else "tokens to score"
    for heading in ("to ask", "stored", unit):
        table.add_column(heading, justify="right")
    notes = []
    shown: set[str] = set()
    for plan in plans:
        tokens = tokens_per_record(inputs.targets[plan.name], texts)
        for preparation in plan.preparations:
            settings = preparation.recipe.spec
            if preparation.ready:
                continue
            if isinstance(settings, SelfGeneratedReference):
                notes.append(
                    f"{preparation.stage_name(plan.name)}: {plan.name} generates "
                    f"{settings.images:,} images in {settings.sampling_steps} steps each, and a "
                    f"model is trained on them for {settings.training.steps:,} steps"
                )
            else:
                notes.append(
                    f"{preparation.stage_name(plan.name)}: {plan.name} writes {settings.texts:,} "
                    f"texts of {settings.max_tokens} tokens, and the base is fine-tuned on them "
                    f"for {settings.fine_tune.epochs:g} epochs"
                )
        for stage in plan.stages:
            if stage.name in shown:
                continue
            shown.add(stage.name)
            checkpoint = stage.loader.checkpoint
            if of_images:
                amount = f"{sum(p.to_ask * p.probe.passes for p in stage.probes):,}"
            else:
                unknown = stage.role == "neighbors" or math.isnan(tokens)
                amount = "-" if unknown else f"{stage.to_ask * tokens:,.0f}"
            table.add_row(
                stage.name,
                "no model" if checkpoint is None else checkpoint.label,
                f"{stage.to_ask:,}",
                f"{stage.stored:,}",
                amount,
            )
    counts = (
        f"{records.count(True):,} members, {records.count(False):,} non-members, "
        f"{records.count(None):,} candidates; {len(records.set_aside):,} set aside; "
        f"attacks: {', '.join(a.label for a in inputs.attacks)}"
    )
    prepared = (f"to prepare: {note}" for note in notes)
    aside = (f"{n} set aside: {reason}" for reason, n in count_reasons(records.set_aside).items())
    same = identical_models(inputs.targets, inputs.references)
    costs = estimate_table(expected, spec.costs)
    return Group(counts, *aside, table, *prepared, costs, *inputs.left_out_lines(), *same)
