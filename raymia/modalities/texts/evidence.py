"""The evidence on one target of texts."""

from __future__ import annotations

from collections.abc import Mapping

from raymia.attacks import NamedAttack
from raymia.attacks.base import Scores
from raymia.evidence.store import EvidenceStore
from raymia.evidence.text import ShadowEvidence, TextEvidence
from raymia.inputs.base import Inputs
from raymia.models.source import Checkpoint
from raymia.plan.planning import TargetPlan
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
        if any(attack.uses_population for attack in attacks):
            texts = list(inputs.population.values())
            self.population = (texts, Answers(inputs, store, plan, list(inputs.population)))
        self.corpus = None
        checkpoint, corpus = inputs.targets[plan.name], inputs.spec.corpus
        if corpus and isinstance(checkpoint, Checkpoint) and any(a.uses_corpus for a in attacks):
            self.corpus = token_counts(corpus, checkpoint, store)
        self.shadows = [
            ShadowEvidence(self.records.references[name], is_in)
            for name, is_in in shadows_of(inputs, plan)
        ]

    def given_to(self, named: NamedAttack, found: Mapping[str, Scores]) -> TextEvidence:
        attack, population = named.attack, None
        if attack.uses_population and self.population is not None:
            texts, answers = self.population
            population = TextEvidence(texts, answers.target, answers.against(named.reference))
        return TextEvidence(
            self.texts,
            self.records.target,
            self.records.against(named.reference),
            shadows=self.shadows if attack.uses_shadows else (),
            population=population,
            corpus=self.corpus if attack.uses_corpus else None,
            labelled=self.known.labelled(found) if attack.combines else None,
        )
