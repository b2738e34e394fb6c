"""The evidence of a sweep, and which settings of the queries an attack can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raymia.evidence.store import EvidenceStore
from raymia.plan.planning import AuditPlan
from raymia.scoring.evidence import TargetEvidence
from raymia.spec import Value
from raymia.sweep.content import EvidenceHasher
from raymia.sweep.evaluate import Place
from raymia.sweep.plan import SweepPlan, attacks_on, keys_that_matter
from raymia.sweep.work import Case
from raymia.util.hashing import digest
from raymia.util.plugins import code_digest, is_outside


@dataclass(frozen=True)
class Places:
    """Where settings are tried.

    Attributes
    ----------
    evidence : what is known, by target and setting of the queries.
    found : for each target and attack, by target and the attack's key: places that differ.
    queries : the values of the swept keys that matter at a place.
    answers : how many each setting of the queries rests on.
    """

    evidence: dict[Case, TargetEvidence]
    found: dict[tuple[str, str], list[Place]]
    queries: dict[Place, dict[str, Value]]
    answers: list[int]


def read_places(plan: SweepPlan, plans: Sequence[AuditPlan], store: EvidenceStore) -> Places:
    """Read all evidence. An attack for which two settings of the queries come to the same evidence
    has one place for both.

    Parameters
    ----------
    plans : of the audits, when they have been asked.
    """
    places = Places({}, {}, {}, [])
    for audit, targets in zip(plan.audits, plans, strict=True):
        places.answers.append(sum(stage.not_asked for t in targets for stage in t.stages))
        for target in targets:
            inputs = targets.inputs
            known = inputs.modality.evidence_on(inputs, store, target)
            places.evidence[target.name, audit.number] = known
    hasher = EvidenceHasher()
    for swept in plan.sweep.attacks:
        read: dict[tuple[str, str], dict[int, Place]] = {}
        for (name, number), known in places.evidence.items():
            inputs = plan.audits[number].inputs
            for named in attacks_on(swept, inputs, name):
                content = hasher.digest(
                    known.given_to(named, {}), (*named.attack.asks, inputs.modality.loss_question)
                )
                if is_outside(type(named.attack)):
                    content = digest([content, code_digest(type(named.attack))])
                place = Place(
                    name, number, swept.key, swept.statistic, named.reference, content,
                    named.neighbors,
                )  # fmt: skip
                read.setdefault((name, place.label), {})[number] = place
        for (name, _), by_number in read.items():
            contents = {number: place.evidence for number, place in by_number.items()}
            matter = keys_that_matter(plan.audits, contents)
            first = {place.evidence: place for place in reversed(by_number.values())}
            for place in sorted(first.values(), key=lambda place: place.query):
                places.found.setdefault((name, swept.key), []).append(place)
                values = plan.audits[place.query].values
                places.queries[place] = {key: values[key] for key in matter}
    return places
