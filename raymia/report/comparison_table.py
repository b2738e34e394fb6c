"""Two runs side by side, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from raymia.report.listing import Listing
from raymia.results import wording
from raymia.results.comparison_result import AttackChange, Difference, RunComparison, TargetChange

LISTED = 30
"""Settings beyond this many are counted; all of them are in the JSON."""


def print_comparison(comparison: RunComparison, console: Console) -> None:
    """Print what changed: records and settings first, then each target."""
    for line in (*_heading(comparison), *_settings(comparison)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
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
            "B - A with 95 % intervals, each on its own: AUC by DeLong's paired test, TPR (percent)"
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


def _settings(comparison: RunComparison) -> Iterator[str]:
    """What differs, a line each."""
    for change in comparison.settings[:LISTED]:
        yield f"{change.what}: A has {change.a or 'none'}, B has {change.b or 'none'}"
    rest = len(comparison.settings) - LISTED
    if rest > 0:
        yield f"and {rest} more that differ"


def _attacks(target: TargetChange, max_fpr: float) -> Listing:
    return Listing(
        ("attack", "", "A", "B", "B - A", "p"),
        [row for entry in target.attacks for row in _rows(entry, max_fpr)],
    )


def _rows(entry: AttackChange, max_fpr: float) -> Iterator[tuple[Text, list[Text]]]:
    """One row for the AUC, and one for the rate."""
    auc, tpr, name = entry.auc, entry.tpr, Text(entry.attack)
    if auc is None:
        yield name, [Text("too few records", style="dim")]
        return
    numbers = ("AUC", f"{auc.a:.3f}", f"{auc.b:.3f}", _interval(auc, 1.0, 3))
    yield name, [*map(Text, numbers), _p_value(auc)]
    rate = f"TPR@{wording.budget(max_fpr)}"
    if tpr is None:
        why = "not compared: fitted on labels" if entry.fitted else "not resolvable"
        yield Text(), [Text(f"{rate} {why}", style="dim")]
        return
    numbers = (rate, f"{100 * tpr.a:.1f}", f"{100 * tpr.b:.1f}", _interval(tpr, 100.0, 1))
    yield Text(), [*map(Text, numbers), _p_value(tpr)]


def _interval(found: Difference, unit: float, digits: int) -> str:
    value, low, high = (f"{unit * x:+.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _p_value(difference: Difference) -> Text:
    shown = "<0.001" if difference.p_holm < 0.001 else f"{difference.p_holm:.3f}"
    return Text(shown, style="bold" if difference.p_holm <= 0.05 else "dim")
