"""How many records a target writes on, from what it wrote for `samia`."""

from __future__ import annotations

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.modalities.texts.evidence import texts_of
from raymia.plan.stages import TargetPlan
from raymia.questions.deeper import SampleQuestion
from raymia.results.extraction import Extraction, extraction
from raymia.spec import SamplesSpec


def extracted(inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> Extraction | None:
    """Count the records of each kind; None where nothing was sampled."""
    asked = [p for p in plan.target.questions if isinstance(p.question, SampleQuestion)]
    if not asked:
        return None
    table, spec = inputs.records.table, inputs.spec
    samples = asked[0].question.lay_out(store.read(asked[0].key), inputs.records.ids)
    texts = texts_of(inputs.targets[plan.name], table["payload"].to_pylist())
    return extraction(
        zip(table["is_member"].to_pylist(), texts, samples, strict=True),
        target=plan.name,
        words=(spec.probes.samples or SamplesSpec()).extracted_words,
        confidence=spec.metrics.confidence,
    )
