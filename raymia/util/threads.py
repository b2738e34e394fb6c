"""Threads that compute side by side."""

from __future__ import annotations

import os

BRIEF_SPINS = {"GOMP_SPINCOUNT": "1000"}
"""Threads that spin while they wait take the cores from each other: on two busy cores scoring takes
twice as long. Threads that do not spin at all are slower where cores are free."""


def spin_briefly() -> None:
    """Let threads of this process give up their cores while they wait, unless the user says else.

    It takes effect if torch is not imported yet.
    """
    for name, value in BRIEF_SPINS.items():
        os.environ.setdefault(name, value)
