"""What a block's records were read as, passed on to the pools whose models read them alike.

Tokenizing takes a core as long as a fast device takes to answer, and the models of an audit mostly
have one tokenizer. So a block takes along, in a column for each way of reading, a list for each
record: its own reading, and those of the neighbors that are known.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from raymia.models.causal.readings import Readings


def read_column(reading: str) -> str:
    return f"read:{reading}"


def take_along(block: pa.Table, reading: str, model: Any) -> pa.Table:
    """Write into a block what a model keeps of its records.

    Parameters
    ----------
    model : None where none of the reading was asked: what came with the block is left then.
    """
    name = read_column(reading)
    if model is None:
        is_there = name in block.column_names
        return block if is_there else block.append_column(name, pa.nulls(block.num_rows))
    payloads = payloads_of(block)
    read = model.readings.passed_on(chain.from_iterable(payloads))
    column = pa.ListArray.from_arrays(np.cumsum([0, *map(len, payloads)]), read)
    if name in block.column_names:
        block = block.drop_columns(name)
    return block.append_column(name, column)


def use(block: pa.Table, reading: str, model: Any) -> None:
    """Let a model keep what came with a block; nothing where other neighbors were known then."""
    name = read_column(reading)
    if name not in block.column_names or pa.types.is_null(block.schema.field(name).type):
        return
    payloads, lists = payloads_of(block), block[name].combine_chunks()
    if lists.value_lengths().to_pylist() == [*map(len, payloads)]:
        model.readings.keep(chain.from_iterable(payloads), lists.flatten())


def forget(block: pa.Table, model: Any) -> None:
    """Let a model that keeps what it reads keep nothing of a block that it was asked about."""
    readings = getattr(model, "readings", None)
    if isinstance(readings, Readings):
        readings.forget(chain.from_iterable(payloads_of(block)))


def payloads_of(block: pa.Table) -> list[list[Any]]:
    """Of each record, its own payload and those of its neighbors that are known."""
    columns = (block[name].to_pylist() for name in ("payload", "neighbor_payload"))
    return [[own, *others] for own, others in zip(*columns, strict=True)]
