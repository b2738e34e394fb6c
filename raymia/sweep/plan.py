"""What a sweep would ask of the models, and how many settings it tries."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymia.attacks import NamedAttack, build
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.inputs.served import unserved
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.missing import Missing
from raymia.plan.planning import AuditPlan, plan_audit
from raymia.plan.stages import PlannedQuestion, TargetPlan
from raymia.spec import Value
from raymia.sweep.evaluate import Split, halve
from raymia.sweep.space import Sweep, SweptAttack
from raymia.util.errors import InputError


@dataclass(frozen=True)
class Audit:
    """The audit of one setting of the queries.

    Attributes
    ----------
    number : of the setting, from 0.
    values : by dotted key; empty where no query is swept.
    """

    number: int
    values: dict[str, Value]
    inputs: Inputs

    @property
    def title(self) -> str:
        """The setting in words."""
        return ", ".join(f"{key} {value}" for key, value in self.values.items()) or "as written"


@dataclass(frozen=True)
class SweepPlan:
    """A sweep, resolved and checked.

    Attributes
    ----------
    audits : one for each setting of the queries.
    plans : of the audits, each as if it asked alone.
    halves : of the records.
    order : numbers of the audits in the order in which they ask, the one that asks most first.
    to_ask : how many questions each audit puts, those before it having put theirs.
    to_prepare : how many references each audit makes that no other before it does.
    settings : how many settings of attacks are tried, over all targets and references; for Optuna
        the most it can be.
    """

    sweep: Sweep
    audits: list[Audit]
    plans: list[AuditPlan]
    halves: Split
    order: list[int]
    to_ask: list[int]
    to_prepare: list[int]
    settings: int


def plan_sweep(sweep: Sweep, store: EvidenceStore) -> SweepPlan:
    """Resolve what a sweep works on, and say what it would ask.

    Raises
    ------
    InputError
        For anything wrong in what was given, for too few records to be halved, and for a key that
        changes nothing that the attacks look at.
    """
    audits = [
        Audit(number, dict(setting.values), resolve_inputs(setting.spec, served=False))
        for number, setting in enumerate(sweep.queries)
    ]
    _refuse_unserved(sweep, audits)
    halves = halve(audits[0].inputs, sweep.spec.seed, sweep.spec.objective)
    plans = [plan_audit(audit.inputs, store) for audit in audits]
    _refuse_idle_keys(sweep, audits, plans)
    totals = [sum(target.to_ask for target in targets) for targets in plans]
    order = sorted(range(len(audits)), key=lambda number: -totals[number])
    to_ask, to_prepare = _shares(plans, order)
    settings = _count_settings(sweep, audits, plans)
    return SweepPlan(sweep, audits, plans, halves, order, to_ask, to_prepare, settings)


def attacks_on(swept: SweptAttack, inputs: Inputs, target: str) -> list[NamedAttack]:
    """A swept attack with each reference it can run with on a target."""
    return [n for n in swept.named(inputs.spec) if (target, n.label) not in inputs.left_out]


def keys_that_matter(audits: Sequence[Audit], read: Mapping[int, Hashable]) -> list[str]:
    """The swept keys that change what is read.

    Parameters
    ----------
    read : by the number of a setting of the queries; those that do not count are left out.
    """

    def matters(key: str) -> bool:
        by_others: dict[Hashable, set[Hashable]] = {}
        for audit in audits:
            others = repr(sorted((k, v) for k, v in audit.values.items() if k != key))
            if audit.number in read:
                by_others.setdefault(others, set()).add(read[audit.number])
        return any(len(different) > 1 for different in by_others.values())

    return [key for key in audits[0].values if matters(key)]


def _refuse_unserved(sweep: Sweep, audits: Sequence[Audit]) -> None:
    """Refuse settings of attacks that an audit does not give the means for; of each parameter, the
    first such value is named."""
    problems: dict[tuple[str, ...], str] = {}
    for inputs in (audit.inputs for audit in audits):
        for swept in sweep.attacks:
            targets = [name for name in inputs.targets if attacks_on(swept, inputs, name)]
            for where, parameters in swept.tried_alone():
                attack = build(swept.statistic, dict(parameters), where, inputs.spec.records.kind)
                for target in targets:
                    if (why := unserved(inputs, attack, target)) is not None:
                        said = f"{where} cannot be tried on {target!r}: {why}"
                        problems.setdefault((swept.key, *parameters), said)
    if problems:
        raise InputError(problems.values())


def _refuse_idle_keys(
    sweep: Sweep, audits: Sequence[Audit], plans: Sequence[Sequence[TargetPlan]]
) -> None:
    """Refuse keys without which everything that is read would be the same."""

    def reads(audit: Audit) -> Hashable:
        return tuple(
            _reads(audit.inputs, plan, named)
            for plan in plans[audit.number]
            for swept in sweep.attacks
            for named in attacks_on(swept, audit.inputs, plan.name)
        )

    matter = keys_that_matter(audits, {audit.number: reads(audit) for audit in audits})
    idle = [k for k in audits[0].values if k not in matter and _values_of(audits, k) > 1]
    if idle:
        named = ", ".join(swept.key for swept in sweep.attacks)
        raise InputError(
            [
                f"sweep.queries.{key}: changes nothing that the swept attacks ({named}) ask; leave "
                "it out, or sweep an attack that asks it"
                for key in idle
            ]
        )


def _values_of(audits: Sequence[Audit], key: str) -> int:
    return len({repr(audit.values[key]) for audit in audits})


def _reads(inputs: Inputs, plan: TargetPlan, named: NamedAttack) -> Hashable:
    """What tells the evidence of one attack from another's: keys, and how many answers each."""
    attack = named.attack
    wanted = {*attack.asks, inputs.modality.loss_question}
    beside = [named.reference] if named.reference is not None else []
    if inputs.shows_shadows(attack):
        beside += inputs.shadow_members
    stages = [plan.target, *(plan.references[name] for name in beside if name in plan.references)]
    answers = tuple(
        (stage.name, p.label, p.key.hash, len(p.question.indices()))
        for stage in stages
        for p in stage.questions
        if p.question.names & wanted and _is_read(p, named)
    )
    made = (
        tuple(p.recipe.key for p in plan.preparations) if "generated_images" in attack.needs else ()
    )
    return plan.name, named.label, answers, made


def _is_read(planned: PlannedQuestion, named: NamedAttack) -> bool:
    """Whether an attack reads the answers, which may be about other neighbors than its own."""
    about = planned.label.partition(".")[2] if planned.question.subject == "neighbor" else ""
    return about == "" or about == named.neighbors


def _shares(
    plans: Sequence[Sequence[TargetPlan]], order: Sequence[int]
) -> tuple[list[int], list[int]]:
    """What each audit asks and makes that those before it do not."""
    seen: dict[str, Missing] = {}
    made: set[str] = set()
    to_ask, prepared = [0] * len(plans), [0] * len(plans)
    for number in order:
        for planned in _planned(plans[number]):
            before = seen.get(planned.key.hash, Missing.nothing(range(0)))
            to_ask[number] += (planned.missing - before).count
            seen[planned.key.hash] = before | planned.missing
        keys = {p.recipe.key for t in plans[number] for p in t.preparations if not p.ready}
        prepared[number] = len(keys - made)
        made |= keys
    return to_ask, prepared


def _planned(audit: Sequence[TargetPlan]) -> Iterator[PlannedQuestion]:
    return (planned for plan in audit for stage in plan.stages for planned in stage.questions)


def _count_settings(
    sweep: Sweep, audits: Sequence[Audit], plans: Sequence[Sequence[TargetPlan]]
) -> int:
    total = 0
    for swept in sweep.attacks:
        places: dict[str, set[Any]] = {}
        for audit in audits:
            for plan in plans[audit.number]:
                for named in attacks_on(swept, audit.inputs, plan.name):
                    place = _reads(audit.inputs, plan, named)
                    places.setdefault(plan.name, set()).add(place)
        for found in places.values():
            total += len(found) * len(swept.settings) if swept.settings else sweep.spec.samples
    return total
