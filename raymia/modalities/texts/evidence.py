"""The evidence on one target of texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import Floats, ShadowEvidence, TextEvidence
from raymia.inputs.base import Inputs
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.resolver import Endpoint
from raymia.models.tokenizers import tokenizer_of
from raymia.plan.stages import TargetPlan
from raymia.prepare.corpus import token_counts
from raymia.records.conversations import content_of
from raymia.scoring.evidence import Answers, Known, shadows_of
from raymia.spec import TextRecordsSpec
from raymia.util.lazily import Lazily


class OnTexts:
    """See :class:`raymia.scoring.evidence.TargetEvidence`."""

    def __init__(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> None:
        attacks = [named.attack for named in inputs.attacks_on(plan.name)]
        self.known = Known(inputs)
        self.signs = _signs(inputs)
        checkpoint = inputs.targets[plan.name]
        table = inputs.records.table
        count, payloads = table.num_rows, table["payload"]
        self.texts = Lazily(count, lambda: texts_of(checkpoint, payloads.to_pylist()))
        ids = Lazily(count, lambda: inputs.records.ids)
        self.records = Answers(inputs, store, plan, ids)
        self.population: tuple[list[str], Answers] | None = None
        if any("population" in attack.needs for attack in attacks):
            texts = texts_of(checkpoint, list(inputs.population.values()))
            self.population = (
                texts,
                Answers(inputs, store, plan, list(inputs.population), population=True),
            )
        self.corpus = None
        corpus = inputs.spec.corpus
        wanted = any("corpus" in attack.needs for attack in attacks)
        if corpus and isinstance(checkpoint, CausalCheckpoint) and wanted:
            self.corpus = token_counts(corpus, checkpoint, store)
        self.shadows = [
            ShadowEvidence(self.records.references[name], is_in)
            for name, is_in in shadows_of(inputs, plan, ids)
        ]
        self.shadows_on_population = [
            ShadowEvidence(self.population[1].references[name], is_in)
            for name, is_in in shadows_of(inputs, plan, list(inputs.population))
            if self.population is not None
        ]

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> TextEvidence:
        attack, population = named.attack, None
        reference = self.records.against(named.reference)
        if "population" in attack.needs and self.population is not None:
            texts, answers = self.population
            population = TextEvidence(
                texts,
                answers.target,
                answers.against(named.reference),
                shadows=self.shadows_on_population if "shadows" in attack.needs else (),
            )
        return TextEvidence(
            self.texts,
            self.records.target.with_neighbors(named.neighbors),
            None if reference is None else reference.with_neighbors(named.neighbors),
            shadows=self.shadows if "shadows" in attack.needs else (),
            population=population,
            corpus=self.corpus if "corpus" in attack.needs else None,
            labelled=self.known.labelled(found) if "other_scores" in attack.needs else None,
            units=self.known.units if "units" in attack.needs else None,
            signs=self.signs if "judged_answers" in attack.needs else None,
        )


def _signs(inputs: Inputs) -> Floats | None:
    """Whether each scored answer was wanted; None where records do not say it."""
    records, payloads = inputs.spec.records, inputs.records.table["payload"]
    assert isinstance(records, TextRecordsSpec)
    if not records.are_judged:
        return None
    if records.are_pairs:
        return np.full(len(payloads), 1.0 if records.side == "chosen" else -1.0)
    wanted = (content_of(payload)["label"] for payload in payloads.to_pylist())
    return np.array([1.0 if label else -1.0 for label in wanted])


def texts_of(checkpoint: AnyCheckpoint, payloads: list[str]) -> list[str]:
    """The text of each record that was scored on a target."""
    if not isinstance(checkpoint, CausalCheckpoint | Endpoint) or checkpoint.training is None:
        return payloads
    reader = TrainedReader(tokenizer_of(checkpoint), checkpoint.training)
    return [reader.text(payload) for payload in payloads]
