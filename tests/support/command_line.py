"""The command line, in this process or in one for several commands: what it prints, and what it
would exit with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from forks.programs import Done

from raymia.cli.main import main


def raymia(*arguments: str | Path, columns: int = 160, **environment: str) -> Done:
    """Run a command as its process would, on a terminal of some columns."""
    out, errors, code, began = StringIO(), StringIO(), 0, time.monotonic()
    with (
        redirect_stdout(out),
        redirect_stderr(errors),
        patch.object(sys, "argv", ["raymia", *map(str, arguments)]),
        environment_with(COLUMNS=str(columns), **environment),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Done(code, out.getvalue(), errors.getvalue(), time.monotonic() - began)


@contextmanager
def environment_with(**values: str) -> Iterator[None]:
    """Set variables for a block; after it, undo whatever has changed meanwhile.

    All others stay where they are. ``patch.dict`` would remove every variable and set it again, and
    a library's thread that reads one in C at that moment ends the process.
    """
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        changed = {name: value for name, value in before.items() if os.environ.get(name) != value}
        os.environ.update(changed)


ENDED = "-- ended with "
IN_TURN = f"""
import json, sys, time
from raymia.cli.main import main

for arguments in json.loads(sys.argv[1]):
    sys.argv, code, began = ["raymia", *arguments], 0, time.monotonic()
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    for stream in (sys.stdout, sys.stderr):
        print("{ENDED}", code, " after ", time.monotonic() - began, sep="", file=stream, flush=True)
"""


def in_turn(
    *commands: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
) -> list[Done]:
    """Run commands one after another in one process, which imports what they need once."""
    given = json.dumps([list(map(str, arguments)) for arguments in commands])
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_TURN, given],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    out, errors = _by_command(done.stdout), _by_command(done.stderr)
    assert len(out) == len(errors) == len(commands), done.stdout + done.stderr
    return [
        Done(int(code), text, said, float(seconds))
        for (text, code, seconds), (said, *_) in zip(out, errors, strict=True)
    ]


def _by_command(printed: str) -> list[tuple[str, ...]]:
    """What each command printed, what it would have exited with, and how long it took."""
    *found, _ = re.split(rf"{ENDED}(\d+) after (\S+)\n", printed)
    return list(zip(found[::3], found[1::3], found[2::3], strict=True))
