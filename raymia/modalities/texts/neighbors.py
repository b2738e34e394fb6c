"""How good the neighbors of texts are that a run made, from what is stored of them."""

from __future__ import annotations

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
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
    columns = ["payload", "masked_share", "attempts", "error"]
    records = inputs.records.table
    return neighbor_quality(
        spec.kind,
        store.read(plan.neighbors.probes[0].key, columns),
        dict(zip(*(records[c].to_pylist() for c in ("record_id", "payload")), strict=True)),
        spec.count,
        _judge(inputs, store, plan),
    )


def _judge(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> ReferenceAnswers | None:
    """The first reference that was asked about neighbors: the base, else a model, else another."""
    keys = {n: {p.key.kind: p.key for p in s.probes} for n, s in plan.references.items()}
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
