"""How a process ends that is raymia's own."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

STOPPED = 130
"""The code of a process that Ctrl-C ended."""


def end_with(main: Callable[[], int | None]) -> NoReturn:
    """Run what a process is for, and end the process with its exit code.

    What was registered with :mod:`atexit` is done, and what was printed is written. The interpreter
    is not taken down: threads of Arrow may still hold objects of Python, and those that let go of
    them while it is taken down abort the process, with a code that has nothing to do with the run.
    """
    code = 1

    def end() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # the reader may be gone
                stream.flush()
        os._exit(code)

    atexit.register(end)  # first, so that it runs last
    try:
        code = main() or 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except KeyboardInterrupt:
        code = STOPPED
        raise
    sys.exit(code)
