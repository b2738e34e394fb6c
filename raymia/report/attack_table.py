"""The registered attacks as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from raymia.attacks import Attack, registry


def attack_table() -> Table:
    """Every attack with its formula, source and cost per record."""
    table = Table("attack", "formula", "source", "queries per record", title_justify="left")
    for kind in registry().values():
        table.add_row(kind.name, kind.formula, kind.source, queries_text(kind))
    return table


def queries_text(kind: type[Attack]) -> str:
    """What an attack asks per record, as a formula in the number of neighbors n."""
    each = "1 + n" if kind.uses_neighbors else "1"
    return f"target {each}" + (f", reference {each}" if kind.uses_reference else "")
