"""Several records in a row of a training, none of which sees another.

Rows are filled as TRL's `packing: true` does (`packing_strategy: bfd`): the longest record first,
each into the row that it leaves the least room in (best fit, decreasing). No record is cut for it.
In a row the positions begin anew with each record, by which transformers keeps attention within it,
and the first token of a record carries no loss, as where it stands alone.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from raymia.prepare.trainer import Rows, pad_batch
from raymia.prepare.tuning import measured
from raymia.records.conversations import NOT_TRAINED
from raymia.util.errors import InputError, first_line

CLOSE = 0.02
"""Of the logits of a record: what rounding may make of them in a row with others."""
INSTEAD = "leave out trainer.packing"

Row = Mapping[str, list[int]]


def filled(lengths: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """Which records stand in each row, by number.

    Parameters
    ----------
    lengths : of the records, none above ``room``.

    Examples
    --------
    >>> filled([3, 9, 2, 7], room=10)
    ((1,), (3, 0), (2,))
    """
    rows: list[list[int]] = []
    left: list[tuple[int, int]] = []  # room that is left in each row, the least first
    for record in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        place = bisect.bisect_left(left, (lengths[record], -1))
        space, row = left.pop(place) if place < len(left) else (room, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(record)
        bisect.insort(left, (space - lengths[record], row))
    return tuple(tuple(row) for row in rows)


@dataclass(frozen=True)
class Packed(Sequence[Row]):
    """The rows of a training, each of several records.

    Parameters
    ----------
    records : tokens and labels of each.
    rows : which of them stand in each row.
    """

    records: Rows
    rows: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        return packed([self.records[record] for record in self.rows[row]])

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(len(self)))


def packed(records: Sequence[Row]) -> Row:
    """One row of records; the first token of each carries no loss."""
    labels = [one.get("labels", one["input_ids"]) for one in records]
    return {
        "input_ids": [token for one in records for token in one["input_ids"]],
        "labels": [token for one in labels for token in (NOT_TRAINED, *one[1:])],
        "position_ids": [place for one in records for place in range(len(one["input_ids"]))],
    }


def check_packing(model: Any, records: Rows) -> None:
    """Refuse a model of which a record sees those before it in its row, or is read otherwise there.

    Raises
    ------
    InputError
        Naming the architecture.
    """
    first, second = records[0], records[1 % len(records)]
    other = {**first, "input_ids": [token - 1 if token else 1 for token in first["input_ids"]]}
    kind, size = model.config.model_type, len(second["input_ids"])

    def logits(row: Row) -> torch.Tensor:
        batch = pad_batch([row])
        own = {n: batch[n].to(model.device) for n in ("input_ids", "position_ids") if n in batch}
        found: torch.Tensor = model(**own, use_cache=False).logits[0, -size:].float()
        return found

    with torch.no_grad(), torch.random.fork_rng(), measured(model):
        try:
            alone, after, changed = map(
                logits, (second, packed([first, second]), packed([other, second]))
            )
        except Exception as error:  # of any kind, by what an architecture does
            raise InputError(
                f"trainer.packing: a {kind} cannot read several records in a row: "
                f"{first_line(error)}; {INSTEAD}"
            ) from error
    scale = float(alone.norm())
    if float((after - changed).norm()) > 1e-6 * scale:
        raise InputError(
            f"trainer.packing: in a {kind} a record sees those before it in its row; {INSTEAD}"
        )
    if float((after - alone).norm()) > CLOSE * scale:
        raise InputError(
            f"trainer.packing: a {kind} reads a record otherwise after others in its row; {INSTEAD}"
        )
