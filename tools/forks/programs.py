"""Programs in processes of their own that need not import torch and transformers first.

A process that has imported them waits, and every program is a fork of it: it begins in a fraction
of a second, where a new interpreter takes five.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

IMPORTED = [
    "raymia.cli.main", "raymia.run.audit", "raymia.prepare.fine_tune",
    "raymia.models.causal.family", "transformers.models.gpt2.modeling_gpt2",
]  # fmt: skip
"""Not Ray, which reads its settings when it is imported; who has one Ray for all programs adds it
before the first of them."""
RAYMIA = "from raymia.__main__ import command; command()"


@dataclass(frozen=True)
class Done:
    """A command that ended; the names are those of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


class Program:
    """A program that has been started, as by ``python -c code arguments...``.

    Parameters
    ----------
    environment : all of it; by default that of this process.
    folder : where it runs; by default where this process does.
    """

    def __init__(
        self,
        code: str,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._printed = tempfile.TemporaryDirectory()
        self._began = time.monotonic()
        self._process = _context().Process(
            target=_become,
            args=(code, list(map(str, arguments)), dict(environment or os.environ),
                  str(folder or Path.cwd()), self._printed.name),
        )  # fmt: skip
        self._process.start()

    @property
    def stdout(self) -> str:
        """What it has printed by now."""
        return self._read("stdout")

    @property
    def stderr(self) -> str:
        return self._read("stderr")

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    @property
    def has_ended(self) -> bool:
        return self.returncode is not None

    def send(self, sent: signal.Signals) -> None:
        """Nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, sent)

    def wait(self, seconds: float | None = None) -> Done:
        """Wait for its end. It would exit with minus the signal that killed it."""
        self._process.join(seconds)
        code = self.returncode
        if code is None:
            self._process.kill()
            raise TimeoutError(f"not within {seconds} s: {self.stdout}{self.stderr}")
        took = time.monotonic() - self._began
        return Done(code, self.stdout, self.stderr, took)

    def _read(self, stream: str) -> str:
        file = Path(self._printed.name, stream)
        return file.read_text(encoding="utf-8") if file.exists() else ""


def run(code: str, *arguments: str | Path, seconds: float = 300, **where: Any) -> Done:
    """Run a program to its end; see :class:`Program`."""
    return Program(code, *arguments, **where).wait(seconds)


def raymia(*arguments: str | Path, **where: Any) -> Done:
    """Run a command of raymia; see :class:`Program`."""
    return run(RAYMIA, *arguments, **where)


def _become(
    code: str, arguments: list[str], environment: dict[str, str], folder: str, printed: str
) -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with Path(printed, name).open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(line_buffering=True, encoding="utf-8")
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()
