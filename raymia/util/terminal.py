"""Where what is said to a person is printed."""

from __future__ import annotations

from rich.console import Console


def terminal() -> Console:
    """Standard output. Names are printed as they are: no sign in them is taken for a picture."""
    return Console(emoji=False)
