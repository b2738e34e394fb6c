"""How good the neighbors of texts are that a run made, from what is stored of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raymia.evidence.sharded import has_shards
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.causal.scored_parts import scored_text
from raymia.neighbors.parts import MakesNeighbors
from raymia.plan.stages import PlannedQuestion, TargetPlan
from raymia.questions.text import NeighborQuestion, TokenQuestion
from raymia.results.neighbors import ReferenceAnswers, neighbor_quality
from raymia.results.result import NeighborQuality
from raymia.spec import TextNeighbors, text_neighbors

SAMPLE = 20_000
"""Records whose neighbors are looked at where there are more than a shard of them."""


def qualities(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> dict[str, NeighborQuality]:
    """The figures of each kind of neighbors; they are the same for every target."""
    sections = text_neighbors(inputs.spec.neighbors)
    by_place = dict(enumerate(sections))
    found = {}
    for stage in plan.made_first:
        (make,) = stage.questions
        name = by_place[make.question.neighbors_place]
        found[name] = _quality(inputs, store, plan, make, sections[name])
    return found


def _quality(
    inputs: Inputs,
    store: EvidenceStore,
    plan: TargetPlan,
    make: PlannedQuestion,
    spec: TextNeighbors,
) -> NeighborQuality:
    maker = make.question
    training = maker.training if isinstance(maker, MakesNeighbors) else None
    columns = ["payload", "masked_share", "attempts", "error"]
    records = _looked_at(inputs.records.table)
    every = inputs.records.table.num_rows
    ids = None if records.num_rows == every else records["record_id"].to_pylist()
    made = store.read(make.key, columns, ids)
    if made is not None and training is not None:
        texts = [
            None if p is None else scored_text(p, training) for p in made["payload"].to_pylist()
        ]
        place = made.schema.get_field_index("payload")
        made = made.set_column(place, "payload", pa.array(texts, pa.string()))
    payloads = [scored_text(payload, training) for payload in records["payload"].to_pylist()]
    return neighbor_quality(
        spec.kind,
        made,
        dict(zip(records["record_id"].to_pylist(), payloads, strict=True)),
        spec.count,
        _judge(inputs, store, plan, maker.neighbors_place, ids),
        of_records=None if ids is None else every,
    )


def _looked_at(records: pa.Table) -> pa.Table:
    """The records whose neighbors are looked at: all, or of many some, evenly spread."""
    if not has_shards(records.num_rows):
        return records
    step = records.num_rows // SAMPLE
    is_chosen = np.arange(records.num_rows) % step == 0
    return records.filter(pa.array(is_chosen)).slice(0, SAMPLE)


def _judge(
    inputs: Inputs,
    store: EvidenceStore,
    plan: TargetPlan,
    place: int,
    records: Sequence[str] | None,
) -> ReferenceAnswers | None:
    """The first reference that was asked about neighbors: the base, else a model, else another."""
    keys = {
        name: {
            p.key.kind: p.key
            for p in stage.questions
            if p.question.subject != "neighbor" or p.question.neighbors_place == place
        }
        for name, stage in plan.references.items()
    }
    asked = [
        name
        for name, kinds in keys.items()
        if {TokenQuestion.kind, NeighborQuestion.kind} <= {*kinds}
    ]
    if not asked:
        return None
    specs = inputs.spec.references
    name = min(asked, key=lambda n: (n != "base", specs[n].kind != "model"))
    tokens, neighbors = keys[name][TokenQuestion.kind], keys[name][NeighborQuestion.kind]
    answers = (store.read(key, records=records) for key in (tokens, neighbors))
    return ReferenceAnswers(name, *answers)
