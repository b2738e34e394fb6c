"""`raymia show`: one record, as a target reads it."""

from __future__ import annotations

from typing import Annotated

import typer

from raymia.cli.audit_file import AuditFile, Plugins, read_audit_file


def show(
    file: AuditFile,
    record: Annotated[str, typer.Option(help="the record's id, or the beginning of it")],
    target: Annotated[str | None, typer.Option(help="whose tokens; default: the first")] = None,
    plugin: Plugins = None,
) -> None:
    """Print a record token by token, with what is scored between brackets; loads no model."""
    from raymia.modalities.resolve import resolve_inputs
    from raymia.util.errors import InputError
    from raymia.util.terminal import terminal

    inputs = resolve_inputs(read_audit_file(file, plugin))
    name = target or next(iter(inputs.targets))
    if name not in inputs.targets:
        raise InputError(f"no target {name!r}; there are: {', '.join(inputs.targets)}")
    rows = [n for n, one in enumerate(inputs.records.ids) if one.startswith(record)]
    if len(rows) != 1:
        found = "no record has" if not rows else f"{len(rows):,} records have"
        example = inputs.records.ids[0]
        raise InputError(
            f"{found} an id that begins with {record!r}; an id has 32 characters, as {example}, "
            "and stands in scores.parquet and in the report"
        )
    shown = inputs.modality.describe_record(inputs, rows[0], name)
    terminal().print(shown, highlight=False, markup=False, soft_wrap=True)
