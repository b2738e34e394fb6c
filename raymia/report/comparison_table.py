"""Two runs side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raymia.results import wording
from raymia.results.comparison_result import AttackChange, Difference, RunComparison, TargetChange

LISTED = 30
"""Settings beyond this many are counted; all of them are in the JSON."""


def print_comparison(comparison: RunComparison, console: Console) -> None:
    """Print what changed: records and settings first, then each target."""
    for line in _heading(comparison):
        console.print(line, highlight=False, markup=False)
    if comparison.settings:
        console.print(_settings(comparison))
    for target in comparison.targets:
        console.print(Text(target.sentence, style="bold"))
        if target.attacks:
            console.print(_attacks(target, comparison.max_fpr))
        for what, names in (("only in A", target.removed), ("only in B", target.added)):
            if names:
                console.print(f"{what}: {', '.join(names)}", highlight=False, markup=False)
        console.print()
    console.print(
        Text(
            "B - A with 95 % intervals, each for itself: AUC by DeLong's paired test, TPR (percent)"
            " by a paired bootstrap. p: Holm's correction over every number of every attack above.",
            style="dim",
        )
    )


def _heading(comparison: RunComparison) -> Iterator[str]:
    for letter, run in (("A", comparison.a), ("B", comparison.b)):
        yield f"{letter}: {run.name}, {run.created}, {run.folder}"
    records = comparison.records
    yield (
        f"records: {records.common:,} in both, {records.added:,} only in B, {records.removed:,} "
        f"only in A, {records.relabelled:,} with another label"
    )
    for what, names in (("only in A", comparison.removed), ("only in B", comparison.added)):
        if names:
            yield f"targets {what}: {', '.join(names)}"
    for caution in comparison.cautions:
        yield f"caution: {caution}"


def _settings(comparison: RunComparison) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("what differs", "A", "B"):
        table.add_column(column, overflow="fold")
    for change in comparison.settings[:LISTED]:
        table.add_row(*(Text(text or "-") for text in (change.what, change.a, change.b)))
    rest = len(comparison.settings) - LISTED
    if rest > 0:
        table.add_row(f"... and {rest} more", "", "")
    return table


def _attacks(target: TargetChange, max_fpr: float) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("attack", max_width=23, overflow="fold")
    rate = f"TPR@{wording.budget(max_fpr)}"
    for name in ("AUC A, B", "B - A", "p", f"{rate} A, B", "B - A", "p"):
        table.add_column(name)
    for entry in target.attacks:
        table.add_row(Text(entry.attack), *_cells(entry))
    return table


def _cells(entry: AttackChange) -> list[Text]:
    auc, tpr = entry.auc, entry.tpr
    if auc is None:
        return [Text("too few records", style="dim"), *[Text("")] * 5]
    first = [f"{auc.a:.3f} {auc.b:.3f}", f"{auc.value:+.3f} [{auc.low:+.3f}, {auc.high:+.3f}]"]
    if tpr is None:
        second = [Text("not resolvable", style="dim"), Text(""), Text("")]
    else:
        texts = [
            f"{100 * tpr.a:.1f} {100 * tpr.b:.1f}",
            f"{100 * tpr.value:+.1f} [{100 * tpr.low:+.1f}, {100 * tpr.high:+.1f}]",
        ]
        second = [*map(Text, texts), _p_value(tpr)]
    return [*map(Text, first), _p_value(auc), *second]


def _p_value(difference: Difference) -> Text:
    shown = "<0.001" if difference.p_holm < 0.001 else f"{difference.p_holm:.3f}"
    return Text(shown, style="bold" if difference.p_holm <= 0.05 else "dim")
