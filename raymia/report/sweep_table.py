"""Sweeps in the terminal: what would be tried, and what was best."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from raymia.report.listing import Listing
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
        rows: list[tuple[Text, list[Text]]] = []
        notes = []
        for winner in (w for w in result.winners if w.target == target):
            numbers = (
                f"{winner.tried:,}",
                figure(winner.objective("calibration", result), result.objective),
                figure(winner.objective("evaluation", result), result.objective),
                optimism_text(winner, result),
            )
            rows.append((Text(winner.label), [*map(Text, numbers)]))
            best = setting_text(winner.parameters, winner.queries)
            notes.append(Text(f"best setting of {winner.label}: {best}"))
            if text := held_out_text(winner, result):
                notes.append(Text(f"{winner.label}: {text}", style="dim"))
        table = Listing(("attack", "tried", "chosen on", "judged on", "optimism"), rows)
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
        to_ask, prepared = plan.to_ask[number], plan.to_prepare[number]
        table.add_row(Text(plan.audits[number].title), f"{to_ask:,}", f"{prepared:,}")
    named = ", ".join(swept.key for swept in plan.sweep.attacks)
    most = "at most " if plan.sweep.spec.search == "optuna" else ""
    halves = {half: plan.halves.counts(half) for half in ("calibration", "evaluation")}
    sizes = ", ".join(f"{m:,} members and {n:,} non-members" for m, n in halves.values())
    return Group(
        table,
        Text(
            f"{most}{plan.settings:,} settings of {named} on {len(plan.audits)} settings of the "
            f"queries, by {objective_name(plan.sweep.spec.objective)}; trying them asks no model. "
            "What was asked for one is stored for the others."
        ),
        Text(f"chosen on one half of the records, judged on the other: {sizes}"),
    )
