"""How good the neighbors of texts are that a run made, from what is stored of them."""

from __future__ import annotations

import pyarrow as pa

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.models.causal.scored_parts import scored_text
from raymia.neighbors.parts import MakesNeighbors
from raymia.plan.stages import TargetPlan
from raymia.questions.text import NeighborQuestion, TokenQuestion
from raymia.results.neighbors import ReferenceAnswers, neighbor_quality
from raymia.results.result import NeighborQuality
from raymia.spec import TextNeighbors


def quality(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> NeighborQuality | None:
    """The figures of the neighbors; they are the same for every target."""
    spec = inputs.spec.neighbors
    if plan.neighbors is None or not isinstance(spec, TextNeighbors):
        return None
    maker = plan.neighbors.questions[0].question
    training = maker.training if isinstance(maker, MakesNeighbors) else None
    columns = ["payload", "masked_share", "attempts", "error"]
    records = inputs.records.table
    made = store.read(plan.neighbors.questions[0].key, columns)
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
        _judge(inputs, store, plan),
    )


def _judge(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> ReferenceAnswers | None:
    """The first reference that was asked about neighbors: the base, else a model, else another."""
    keys = {n: {p.key.kind: p.key for p in s.questions} for n, s in plan.references.items()}
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
    return ReferenceAnswers(name, store.read(tokens), store.read(neighbors))
