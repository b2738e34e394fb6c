"""`raymia export`: what a run found, for papers, model cards and other tools."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from raymia.cli.gate import RunFolder
from raymia.util.credentials import say
from raymia.util.errors import InputError


class Form(StrEnum):
    """Forms that a run is exported to."""

    CSV = "csv"
    PARQUET = "parquet"
    MARKDOWN = "markdown"
    LATEX = "latex"
    MODEL_CARD = "model-card"
    SVG = "svg"
    PNG = "png"


PICTURES = {Form.SVG, Form.PNG}
BINARY = {Form.PARQUET, Form.PNG}


def export(
    run: RunFolder,
    to: Annotated[
        Form,
        typer.Option(
            help="all figures of each attack: csv, parquet; a table: markdown, latex; a section "
            "for a model card: model-card; ROC curves: svg, png"
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="file to write; default: the terminal", metavar="FILE")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="whose curves svg and png draw; may be left out where there is one"),
    ] = None,
) -> None:
    """Write what a stored run found in another form; no model is asked."""
    from raymia import load_run
    from raymia.report.export import draw
    from raymia.report.export import export as write

    if to in BINARY and out is None:
        raise InputError(f"--to {to.value}: name a file with --out, since it is no text")
    if target is not None and to not in PICTURES:
        raise InputError(f"--target goes with --to svg and png; --to {to.value} has every target")
    others = {f".{form.value}" for form in Form if form is not to}
    if out is not None and out.suffix.lower() in others:
        raise InputError(f"--out: {out} is called {out.suffix}, and --to is {to.value}; change one")
    stored = load_run(run)
    content = draw(stored, target, to.value) if to in PICTURES else write(stored, to.value)
    if out is None:
        sys.stdout.write(content.decode())
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)
    say(f"written: {out}")
