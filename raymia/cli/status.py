"""`raymia status`: where each checkpoint of an audit is, from another process or afterwards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raymia.cli.audit_file import Plugins, read_audit_file

if TYPE_CHECKING:
    from rich.console import RenderableType

FOLLOW_SECONDS = 2.0


def status(
    run: Annotated[
        str,
        typer.Argument(help="output folder of a run, or the audit file", metavar="RUN_OR_AUDIT"),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", help="go on until the run has ended or is dead")
    ] = False,
    plugin: Plugins = None,
) -> None:
    """Say where each checkpoint is, while the audit runs and afterwards; starts nothing."""
    from rich.live import Live

    from raymia.run.status import read_status
    from raymia.util.terminal import terminal

    output = run
    if run.endswith((".yaml", ".yml")):
        output = read_audit_file(Path(run), plugin).output
    console = terminal()
    if not follow:
        console.print(_table(output))
        return
    with Live(_table(output), console=console, auto_refresh=False) as live:
        while True:
            found = read_status(output)
            if found.ended or found.is_dead:
                break
            time.sleep(FOLLOW_SECONDS)
            live.update(_table(output), refresh=True)
    if not console.is_terminal:
        console.line()  # which a live display writes on terminals alone


def _table(output: str) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from raymia.run.status import read_status

    found = read_status(output)
    table = Table()
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("state", overflow="fold")
    for name, progress in found.targets.items():
        table.add_row(Text(name), Text(str(progress)))
    title = Text(f"Audit {found.audit}, run {found.run}", style="italic")
    return Group(title, table, Text(found.summary()))
