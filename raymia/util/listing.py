"""Names in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 8


def listed(names: Sequence[str]) -> str:
    """The names one after another; of many, eight and how many more there are."""
    if len(names) <= SHOWN + 1:
        return ", ".join(names)
    return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN:,} more"
