"""The table of scores: one row for each target, attack and record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.metrics.roc import BoolArray, FloatArray

SCORES_SCHEMA = pa.schema(
    [
        ("target", pa.string()),
        ("attack", pa.string()),
        ("record_id", pa.string()),
        ("is_member", pa.bool_()),  # null: membership unknown
        ("score", pa.float64()),  # null or NaN: the attack has no score for this record
        ("p_value", pa.float64()),  # null: no candidate, or nothing to compare it with
    ]
)


@dataclass(frozen=True)
class LabelledScores:
    """The finite scores of one attack against one target, on records of known membership.

    Attributes
    ----------
    scores : ndarray of shape (n_records,)
    is_member : ndarray of shape (n_records,)
    """

    target: str
    attack: str
    scores: FloatArray
    is_member: BoolArray


def check_scores(table: pa.Table) -> pa.Table:
    """Bring a table to `SCORES_SCHEMA`, leaving out other columns.

    Raises
    ------
    ValueError
        If a column is missing or its values cannot be read as the type in the schema.
    """
    missing = [name for name in SCORES_SCHEMA.names if name not in table.column_names]
    if missing:
        raise ValueError(
            f"The scores should have the columns {', '.join(SCORES_SCHEMA.names)}, "
            f"but {', '.join(missing)} is missing from {', '.join(table.column_names) or 'none'}."
        )
    try:
        return table.select(SCORES_SCHEMA.names).cast(SCORES_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"The scores do not fit their schema: {error}") from error


def labelled(table: pa.Table) -> Iterator[LabelledScores]:
    """Split a checked table by target and attack, in order of first appearance."""
    known = pc.and_(pc.is_valid(table["is_member"]), pc.is_finite(table["score"]))
    table = table.filter(pc.fill_null(known, False))
    if table.num_rows == 0:
        return
    targets = table["target"].combine_chunks().dictionary_encode()
    attacks = table["attack"].combine_chunks().dictionary_encode()
    n_attacks = len(attacks.dictionary)
    pairs = targets.indices.to_numpy().astype(np.int64) * n_attacks + attacks.indices.to_numpy()
    scores = table["score"].to_numpy()
    is_member = table["is_member"].to_numpy()
    order = np.argsort(pairs, kind="stable")
    starts = np.flatnonzero(np.diff(pairs[order])) + 1
    for rows in np.split(order, starts):
        target, attack = divmod(int(pairs[rows[0]]), n_attacks)
        yield LabelledScores(
            target=targets.dictionary[target].as_py(),
            attack=attacks.dictionary[attack].as_py(),
            scores=scores[rows],
            is_member=is_member[rows],
        )
