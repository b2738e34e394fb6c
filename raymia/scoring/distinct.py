"""Attacks measured on distinct records: of those that nearly copy each other one counts.

A cluster of copies passes a threshold as one. Of each cluster one record is therefore measured, the
first: it was not chosen by its score, so that it scores as any other record of its side does. A
mean over copies would not, it scatters less.

Where groups were split, they are what counts, and copies within one count as they are. Of a cluster
in several groups the records of the first group stay, and the others lack theirs: what two groups
share is no evidence twice.

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
    Nothing without copies, or without members or non-members. Where groups were split they are of
    groups, by their distinct records, and nothing where no copies are in several groups.
    """
    if not clusters:
        return []
    judge = Judge.of(inputs)
    if not judge.records.can_measure:
        return []
    by_group = judge.groups is not None and judge.groups.hold_all
    distinct = distinct_records(inputs, clusters, by_group=by_group)
    if by_group and distinct.all():
        return []
    shared = judge, parts, distinct, by_group
    pairs = [(target, named.label) for target in targets for named in inputs.attacks_on(target)]
    return workers.map("attacks on distinct records", _measure_kept, shared, pairs)


def distinct_records(
    inputs: Inputs, clusters: Mapping[str, str], *, by_group: bool = False
) -> BoolArray:
    """The records of which none is known to copy another one among them, [records].

    Parameters
    ----------
    by_group : whether groups are what counts. Then copies within a group stay: of each cluster
        those in the group of the first.
    """
    table = inputs.records.table
    is_copy = pc.is_in(table["record_id"], value_set=pa.array(list(clusters), pa.string()))
    rows = np.flatnonzero(is_copy.to_numpy())
    names = [clusters[name] for name in table["record_id"].take(pa.array(rows)).to_pylist()]
    _, first, of = np.unique(names, return_index=True, return_inverse=True)
    again = np.arange(rows.size) != first[of]
    if by_group:
        groups = np.array(table["group"].take(pa.array(rows)).to_pylist(), np.str_)
        again = groups != groups[first[of]]
    distinct, seen = np.ones(table.num_rows, np.bool_), looked_at(inputs)
    linked = np.isin(of, of[again])
    for kind in (True, False):
        side = pc.fill_null(pc.equal(table["is_member"], kind), False).to_numpy()
        if side[rows[linked]].any():
            distinct &= seen | ~side
    distinct[rows[again]] = False
    return distinct


def _measure_kept(
    shared: tuple[Judge, ScoreParts, BoolArray, bool], target: str, attack: str
) -> Metrics:
    judge, parts, distinct, by_group = shared
    measure = judge.measure_groups if by_group else judge.measure
    return measure(parts.column(target, attack), among=distinct, target=target, attack=attack)
