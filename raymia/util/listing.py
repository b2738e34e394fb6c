"""Names in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 8


FEW = 3
"""Most long names in a list."""


def listed(names: Sequence[str], shown: int = SHOWN) -> str:
    """The names one after another; of many, the first and how many more there are."""
    if len(names) <= shown + 1:
        return ", ".join(names)
    return f"{', '.join(names[:shown])} and {len(names) - shown:,} more"
