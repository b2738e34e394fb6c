"""What an audit will take, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from raymia.plan.blocks import BlockSize
from raymia.plan.estimate import AuditEstimate, StageEstimate
from raymia.report.alike import shorten
from raymia.spec import CostsSpec
from raymia.util.durations import duration

UNKNOWN = "?"
FITS = {True: "fits", False: "does not fit", None: ""}


def estimate_table(found: AuditEstimate, costs: CostsSpec | None) -> RenderableType:
    """Time, GPU-hours and memory of each stage, and what the whole costs."""
    table = Table(title="What it will take", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for heading in ("actors", "busy, each", "GPU-hours", "memory, each"):
        table.add_column(heading, justify="right")
    table.add_column("on its GPU")
    parts = [part for part in (*found.preparations, *found.stages) if part.to_ask]
    rows = [
        (
            part.name,
            str(part.actors),
            UNKNOWN if part.seconds is None else duration(part.seconds / part.actors),
            UNKNOWN if part.gpu_hours is None else f"{part.gpu_hours:.2f}",
            _memory(part),
            FITS[part.fits],
        )
        for part in parts
    ]
    for row in shorten(rows, names=1):
        table.add_row(*row)
    return Group(table, *_sums(found, costs)) if parts else Group("nothing is left to ask")


def _sums(found: AuditEstimate, costs: CostsSpec | None) -> list[str]:
    blocks = _blocks(found.blocks)
    if found.wall_seconds is None:
        return [
            *blocks,
            "how long it takes is not known before a run on this store, or `raymia plan "
            "--calibrate 32`, has measured it",
        ]
    lines = [
        *blocks,
        f"about {duration(found.wall_seconds)} beside starting Ray and loading models; "
        f"{found.gpu_hours or 0:.2f} GPU-hours",
    ]
    if found.cost is not None and costs is not None:
        lines.append(f"about {found.cost:,.2f} {costs.currency}")
    elif costs is not None:
        lines.append(
            "costs: not every pool's machine has a price under costs.per_hour; one with GPUs has "
            "that of its accelerator_type"
        )
    return lines


def _blocks(blocks: Sequence[BlockSize]) -> list[str]:
    """What a block is, and what it is expected to take."""
    if not blocks:
        return []
    records = _range([block.records for block in blocks])
    line = f"blocks of {records} {'record' if records == '1' else 'records'}"
    known = [block.seconds for block in blocks if block.seconds is not None]
    if len(known) < len(blocks):
        return [f"{line}; how long one takes is not known"]
    return [f"{line}, each about {_range(known)} s of an actor of the slowest pool"]


def _range(values: Sequence[float]) -> str:
    """The least and the largest of some numbers.

    >>> _range([32, 32]), _range([2.04, 9.6])
    ('32', '2.0 to 9.6')
    """
    shown = [f"{v:,}" if isinstance(v, int) else f"{v:,.1f}" for v in (min(values), max(values))]
    return " to ".join(dict.fromkeys(shown))


def _memory(part: StageEstimate) -> str:
    return UNKNOWN if part.memory is None else f"{part.memory.total / 2**30:.1f} GiB"
