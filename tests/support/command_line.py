"""The command line in this process: what it prints, and what it would exit with."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from raymia.cli.main import main


@dataclass(frozen=True)
class Done:
    """A command that ended; the names are those of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def raymia(*arguments: str | Path, columns: int = 160, **environment: str) -> Done:
    """Run a command as its process would, on a terminal of some columns."""
    out, errors, code = StringIO(), StringIO(), 0
    with (
        redirect_stdout(out),
        redirect_stderr(errors),
        patch.object(sys, "argv", ["raymia", *map(str, arguments)]),
        patch.dict(os.environ, {"COLUMNS": str(columns), **environment}),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), errors.getvalue())
