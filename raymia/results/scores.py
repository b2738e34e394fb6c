"""The table of scores: one row for each target, attack and record."""

from __future__ import annotations

import pyarrow as pa

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
