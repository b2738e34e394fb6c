"""The evidence on one target of texts."""

from __future__ import annotations

from collections.abc import Mapping

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import ShadowEvidence, TextEvidence
from raymia.inputs.base import Inputs
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.plan.stages import TargetPlan
from raymia.prepare.corpus import token_counts
from raymia.scoring.evidence import Answers, Known, shadows_of


class OnTexts:
    """See :class:`raymia.scoring.evidence.TargetEvidence`."""

    def __init__(self, inputs: Inputs, store: EvidenceStore, plan: TargetPlan) -> None:
        attacks = [named.attack for named in inputs.attacks_on(plan.name)]
        self.known = Known(inputs)
        self.texts = inputs.records.table["payload"].to_pylist()
        self.records = Answers(inputs, store, plan, inputs.records.ids)
        self.population: tuple[list[str], Answers] | None = None
        if any("population" in attack.needs for attack in attacks):
            texts = list(inputs.population.values())
            self.population = (texts, Answers(inputs, store, plan, list(inputs.population)))
        self.corpus = None
        checkpoint, corpus = inputs.targets[plan.name], inputs.spec.corpus
        wanted = any("corpus" in attack.needs for attack in attacks)
        if corpus and isinstance(checkpoint, CausalCheckpoint) and wanted:
            self.corpus = token_counts(corpus, checkpoint, store)
        self.shadows = [
            ShadowEvidence(self.records.references[name], is_in)
            for name, is_in in shadows_of(inputs, plan)
        ]

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> TextEvidence:
        attack, population = named.attack, None
        if "population" in attack.needs and self.population is not None:
            texts, answers = self.population
            population = TextEvidence(texts, answers.target, answers.against(named.reference))
        return TextEvidence(
            self.texts,
            self.records.target,
            self.records.against(named.reference),
            shadows=self.shadows if "shadows" in attack.needs else (),
            population=population,
            corpus=self.corpus if "corpus" in attack.needs else None,
            labelled=self.known.labelled(found) if "other_scores" in attack.needs else None,
        )
