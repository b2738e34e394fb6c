"""What every way of making neighbors of a text shares: the rows, and a bounded number of tries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raymia.neighbors.masking import MaskedWindow
from raymia.questions.base import Item

UNFILLED = "not filled"
NOTHING_TO_MASK = "too short to mask a span"
NEIGHBOR_SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("neighbor", pa.int16()),
        ("payload", pa.string()),
        ("masked_share", pa.float32()),
        ("attempts", pa.int16()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Draft:
    """A neighbor in the making: the windows of a text that have masked spans."""

    item: Item
    windows: list[MaskedWindow]
    masked_share: float
    attempt: int


def draft_from(
    item: Item, windows: Sequence[MaskedWindow], units: int, attempt: int
) -> Draft | None:
    """A draft of a text of ``units`` units; None where nothing is masked."""
    masked = sum(window.units for window in windows)
    if masked == 0:
        return None
    return Draft(item, [w for w in windows if w.spans], masked / units, attempt)


def fill_drafts(
    items: Sequence[Item],
    attempts: int,
    draft: Callable[[Item, int], Draft | None],
    fill: Callable[[list[Draft]], Sequence[str | None]],
) -> pa.Table:
    """Make each item's neighbor; one row per item, in input order.

    A neighbor is tried ``attempts`` times, each time with other masks, and then given up with an
    error.

    Parameters
    ----------
    draft : masks an item's text for an attempt, numbered from 1; None where it is too short.
    fill : the filled texts of drafts; None where an attempt failed.
    """
    rows: dict[int, dict[str, Any]] = {}
    open_items = list(enumerate(items))
    for attempt in range(1, attempts + 1):
        drafts: dict[int, Draft] = {}
        for number, item in open_items:
            made = draft(item, attempt)
            if made is None:
                rows[number] = neighbor_row(item, error=NOTHING_TO_MASK)
            else:
                drafts[number] = made
        texts = fill(list(drafts.values()))
        open_items = []
        for (number, made), text in zip(drafts.items(), texts, strict=True):
            if text is None:
                open_items.append((number, made.item))
            else:
                rows[number] = neighbor_row(made.item, text, made.masked_share, attempt)
        if not open_items:
            break
    for number, item in open_items:
        rows[number] = neighbor_row(item, attempts=attempts, error=UNFILLED)
    return pa.Table.from_pylist([rows[n] for n in range(len(items))], schema=NEIGHBOR_SCHEMA)


def neighbor_row(
    item: Item,
    text: str | None = None,
    masked_share: float | None = None,
    attempts: int = 0,
    error: str | None = None,
) -> dict[str, Any]:
    """A row of :data:`NEIGHBOR_SCHEMA`."""
    return {
        "record_id": item.record_id,
        "neighbor": item.neighbor,
        "payload": text,
        "masked_share": masked_share,
        "attempts": attempts,
        "error": error,
    }
