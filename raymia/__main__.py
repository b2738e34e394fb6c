"""`python -m raymia`, and the command `raymia`."""

import gc

from raymia.cli.main import main
from raymia.util.ending import end_with

COLLECTED_AFTER = 100_000, 50, 20
"""Imports and plans make millions of objects that stay: looking through them for garbage as often
as Python does by itself takes a sixth of a command's time."""


def command() -> None:
    """Run the command line in a process of its own."""
    gc.set_threshold(*COLLECTED_AFTER)
    end_with(main)


if __name__ == "__main__":
    command()
