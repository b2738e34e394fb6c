"""The command line, in this process or in one for several commands: what it prints, and what it
would exit with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
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


ENDED = "-- ended --"
IN_TURN = f"""
import json, sys
from raymia.cli.main import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["raymia", *arguments]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    print("{ENDED}", flush=True)
"""


def in_turn(
    *commands: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
) -> list[str]:
    """What commands print that succeed one after another, in one process that imports once."""
    given = json.dumps([list(map(str, arguments)) for arguments in commands])
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_TURN, given],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.split(ENDED)[:-1]
    assert len(printed) == len(commands), done.stdout + done.stderr
    return printed
