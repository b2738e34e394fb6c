"""Sweeps in the terminal: what would be tried, and what was best."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raymia.report.sweep_wording import (
    figure,
    halves_text,
    held_out_text,
    objective_name,
    optimism_text,
    setting_text,
)
from raymia.sweep.plan import SweepPlan
from raymia.sweep.result import SweepResult


def winners_table(result: SweepResult) -> RenderableType:
    """The best setting of each attack, by target."""
    parts: list[RenderableType] = []
    for target in dict.fromkeys(winner.target for winner in result.winners):
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("attack", overflow="fold")
        table.add_column("best setting", overflow="fold")
        table.add_column("of", justify="right")
        table.add_column("chosen on", min_width=20)
        table.add_column("judged on", min_width=20)
        table.add_column("optimism", justify="right")
        notes = []
        for winner in (w for w in result.winners if w.target == target):
            table.add_row(
                Text(winner.label),
                Text(setting_text(winner.parameters, winner.queries)),
                f"{winner.tried:,}",
                Text(figure(winner.objective("calibration", result), result.objective)),
                Text(
                    figure(winner.objective("evaluation", result), result.objective), style="bold"
                ),
                optimism_text(winner, result),
            )
            if text := held_out_text(winner, result):
                notes.append(Text(f"{winner.label}: {text}", style="dim"))
        parts += [
            Text.assemble((target, "bold"), (f"  {objective_name(result.objective)}", "dim")),
            table,
            *notes,
            "",
        ]
    return Group(*parts, Text(halves_text(result), style="dim"))


def sweep_plan_table(name: str, plan: SweepPlan) -> RenderableType:
    """How many settings a sweep tries, and what it asks for each setting of the queries."""
    table = Table(title=f"Sweep of audit {name}", title_justify="left")
    table.add_column("queries", overflow="fold")
    table.add_column("to ask", justify="right")
    table.add_column("to prepare", justify="right")
    for number in plan.order:
        asked, prepared = plan.asked[number], plan.to_prepare[number]
        table.add_row(Text(plan.audits[number].title), f"{asked:,}", f"{prepared:,}")
    named = ", ".join(swept.key for swept in plan.sweep.attacks)
    most = "at most " if plan.sweep.spec.search == "optuna" else ""
    halves = {half: plan.halves.counts(half) for half in ("calibration", "evaluation")}
    sizes = ", ".join(f"{m:,} members and {n:,} non-members" for m, n in halves.values())
    return Group(
        table,
        Text(
            f"{most}{plan.settings:,} settings of {named} on {len(plan.audits)} settings of the "
            f"queries, by {objective_name(plan.sweep.spec.objective)}; trying them asks no model. "
            "What one asks, those after it share."
        ),
        Text(f"chosen on one half of the records, judged on the other: {sizes}"),
    )
