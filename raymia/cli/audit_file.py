"""The audit file, and what a command takes beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from raymia.spec import AuditSpec, EngineKind

AuditFile = Annotated[Path, typer.Argument(help="the audit file", metavar="AUDIT.YAML")]

Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="a file or module of attacks, questions or kinds of records; may be repeated",
        metavar="FILE_OR_MODULE",
    ),
]

OnEngine = Annotated[
    Literal["ray", "local"] | None,
    typer.Option(
        "--engine", help="`local` does all in this process, without Ray; default: the audit file's"
    ),
]


def read_audit_file(
    file: Path, plugins: list[str] | None, engine: EngineKind | None = None
) -> AuditSpec:
    """An audit file, with what the command line says otherwise."""
    from raymia.spec import with_engine
    from raymia.spec.file import load_spec

    return with_engine(load_spec(file, plugins or []), engine)
