"""Attacks measured on distinct records: of those that nearly copy each other one counts.

A cluster of copies passes a threshold as one. Of each cluster one record is therefore measured, the
first: it was not chosen by its score, so that it scores as any other record of its side does. A
mean over copies would not, it scatters less.

Where the shift check looked at a sample of a side, and found copies in it, it is not known which
other records of that side are copies, so none of them counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymia.inputs.base import Inputs
from raymia.metrics.roc import BoolArray
from raymia.metrics.summary import Metrics
from raymia.scoring.blind import looked_at
from raymia.scoring.judge import Judge
from raymia.scoring.parts import ScoreParts
from raymia.scoring.workers import Workers


def measure_distinct(
    inputs: Inputs,
    targets: Sequence[str],
    parts: ScoreParts,
    clusters: Mapping[str, str],
    workers: Workers,
) -> list[Metrics]:
    """Measure every attack on every target, whose scores are in ``parts``, on distinct records.

    Parameters
    ----------
    clusters : of near-copies, by record id.

    Returns
    -------
    Nothing without copies, or without members or non-members; and where groups were split, which
    are what chance dealt out.
    """
    if not clusters:
        return []
    judge = Judge.of(inputs)
    if not judge.records.can_measure or (judge.groups is not None and judge.groups.hold_all):
        return []
    shared = judge, parts, distinct_records(inputs, clusters)
    pairs = [(target, named.label) for target in targets for named in inputs.attacks_on(target)]
    return workers.map("attacks on distinct records", _measure_kept, shared, pairs)


def distinct_records(inputs: Inputs, clusters: Mapping[str, str]) -> BoolArray:
    """The records of which none is known to copy another one among them, [records]."""
    table = inputs.records.table
    is_copy = pc.is_in(table["record_id"], value_set=pa.array(list(clusters), pa.string()))
    rows = np.flatnonzero(is_copy.to_numpy())
    names = [clusters[name] for name in table["record_id"].take(pa.array(rows)).to_pylist()]
    _, first = np.unique(names, return_index=True)
    distinct, seen = np.ones(table.num_rows, np.bool_), looked_at(inputs)
    for kind in (True, False):
        side = pc.fill_null(pc.equal(table["is_member"], kind), False).to_numpy()
        if side[rows].any():
            distinct &= seen | ~side
    distinct[np.delete(rows, first)] = False
    return distinct


def _measure_kept(shared: tuple[Judge, ScoreParts, BoolArray], target: str, attack: str) -> Metrics:
    judge, parts, distinct = shared
    return judge.measure(parts.column(target, attack), among=distinct, target=target, attack=attack)
