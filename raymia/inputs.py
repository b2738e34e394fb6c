"""What an audit works on, resolved and checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import raymia.attacks
from raymia.attacks import Attack
from raymia.errors import InputError
from raymia.models.endpoint import Endpoint, resolve_endpoint
from raymia.models.source import Checkpoint, resolve_checkpoint
from raymia.records import RecordSet, SetAside, read_records, read_texts, record_id
from raymia.spec import (
    AttackSpec,
    AuditSpec,
    EndpointTarget,
    ModelReference,
    ModelSpec,
    SelfPromptReference,
)


@dataclass(frozen=True)
class NamedAttack:
    """An attack as it stands in the report: ``statistic`` or ``statistic@reference``."""

    label: str
    attack: Attack
    reference: str | None


@dataclass(frozen=True)
class Inputs:
    """Everything an audit file names, resolved.

    Attributes
    ----------
    records : the usable records and those set aside.
    attacks : in the order of the audit file.
    targets : checkpoints and endpoints by name.
    references : checkpoints of references of kind ``model``, by name.
    prompts : usable prompts of each self-prompt reference, by name.
    paraphraser : the model that makes neighbors, where there is one.
    left_out : why an attack of the default list is not run on a target, by target and label.
    """

    spec: AuditSpec
    records: RecordSet
    attacks: list[NamedAttack]
    targets: dict[str, Checkpoint | Endpoint]
    references: dict[str, Checkpoint]
    prompts: dict[str, tuple[str, ...]]
    paraphraser: Checkpoint | None
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)

    def attacks_on(self, target: str) -> list[NamedAttack]:
        """The attacks that are run on a target."""
        return [a for a in self.attacks if (target, a.label) not in self.left_out]

    def left_out_lines(self) -> list[str]:
        """What was left out, for a person to read: one line per target and reason."""
        labels: dict[tuple[str, str], list[str]] = {}
        for (target, label), reason in self.left_out.items():
            labels.setdefault((target, reason), []).append(label)
        return [
            f"target {target}: left out {', '.join(names)}: {reason}"
            for (target, reason), names in labels.items()
        ]


def resolve_inputs(spec: AuditSpec) -> Inputs:
    """Read and check everything, and report all problems together.

    Raises
    ------
    InputError
        With every problem found.
    """
    problems: list[str] = []

    def attempt(action: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return action(*args, **kwargs)
        except InputError as error:
            problems.extend(error.problems)
            return None

    attacks = attempt(name_attacks, spec) or []
    records = attempt(read_records, spec.records)
    target_gpu = spec.resources.target.gpus > 0
    reference_gpu = spec.resources.reference.gpus > 0
    targets = {
        target.name: attempt(resolve_endpoint, target, f"targets[{number}].endpoint")
        if isinstance(target, EndpointTarget)
        else attempt(resolve_checkpoint, target, f"targets[{number}].model", on_gpu=target_gpu)
        for number, target in enumerate(spec.targets)
    }
    left_out = attempt(_left_out, spec, attacks, targets) or {}
    references: dict[str, Checkpoint] = {}
    prompts: dict[str, tuple[str, ...]] = {}
    known = set() if records is None else set(records.table["record_id"].to_pylist())
    aside: list[SetAside] = [] if records is None else list(records.set_aside)
    for name, reference in spec.references.items():
        where = f"references.{name}"
        if isinstance(reference, ModelReference):
            found = attempt(resolve_checkpoint, reference, f"{where}.model", on_gpu=reference_gpu)
            if found is not None:
                references[name] = found
        else:
            usable = attempt(_read_prompts, reference, known, aside, f"{where}.prompts")
            prompts[name] = usable or ()
            base = spec.references[reference.base]
            if isinstance(base, ModelReference) and base.adapter is not None:
                problems.append(
                    f"{where}.base: {reference.base!r} has an adapter, and only a plain model can "
                    "be fine-tuned; merge the adapter into it first"
                )
    paraphraser = None
    if spec.neighbors is not None:
        model = ModelSpec(
            model=spec.neighbors.model, revision=spec.neighbors.revision, dtype="float32"
        )
        paraphraser = attempt(resolve_checkpoint, model, "neighbors.model", on_gpu=False)
    if problems:
        raise InputError(problems)
    return Inputs(
        spec,
        RecordSet(records.table, aside),
        attacks,
        targets,
        references,
        prompts,
        paraphraser,
        left_out,
    )


def _left_out(
    spec: AuditSpec, attacks: list[NamedAttack], targets: dict[str, Checkpoint | Endpoint | None]
) -> dict[tuple[str, str], str]:
    """Why an attack cannot be run on an endpoint, by target and label; refused where it is named.

    Raises
    ------
    InputError
        For attacks that the audit file names, and for references that an endpoint would have to
        write.
    """
    reasons: dict[tuple[str, str], str] = {}
    problems = []
    for name, target in targets.items():
        if not isinstance(target, Endpoint):
            continue
        for attack in attacks:
            lacking = [why for need, why in target.lacks.items() if need in attack.attack.needs]
            if lacking:
                reasons[name, attack.label] = "; ".join(lacking)
        problems += [
            f"references.{reference}: a self-prompt reference is made from texts that the target "
            f"writes, and {name!r} is an endpoint, which is asked about given texts only"
            for reference, kind in spec.references.items()
            if isinstance(kind, SelfPromptReference)
        ]
    if spec.attacks is not None:
        problems += [
            f"attacks: {label!r} cannot be run on {target!r}: {reason}"
            for (target, label), reason in reasons.items()
        ]
    if problems:
        raise InputError(problems)
    return reasons


def name_attacks(spec: AuditSpec) -> list[NamedAttack]:
    """The attacks an audit runs, each with each reference it can run with.

    Raises
    ------
    InputError
        For an attack that is unknown, or that the audit file does not give the means for.
    """
    if spec.attacks is None:
        wanted = [
            AttackSpec(attack=name)
            for name, kind in raymia.attacks.registry().items()
            if (spec.references or not kind.uses_reference)
            and (spec.neighbors or not kind.uses_neighbors)
        ]
    else:
        wanted = list(spec.attacks)
    problems: list[str] = []
    named: list[NamedAttack] = []
    for number, item in enumerate(wanted):
        try:
            named += _with_references(item, spec, f"attacks[{number}]")
        except InputError as error:
            problems += error.problems
    labels = [attack.label for attack in named]
    for label in sorted({x for x in labels if labels.count(x) > 1}):
        problems.append(f"attacks: {label!r} is given twice; give one of them a name of its own")
    if problems:
        raise InputError(problems)
    return named


def _with_references(item: AttackSpec, spec: AuditSpec, where: str) -> list[NamedAttack]:
    statistic, _, reference = item.attack.partition("@")
    attack = raymia.attacks.build(statistic, dict(item.parameters), where)
    label = item.name or statistic
    if item.name is None and item.parameters:
        settings = ",".join(f"{k}={v}" for k, v in sorted(item.parameters.items()))
        label = f"{statistic}({settings})"
    if attack.uses_neighbors and spec.neighbors is None:
        raise InputError(
            f"{where}: {statistic!r} compares records with their neighbors; add a section "
            "`neighbors`"
        )
    if not attack.uses_reference:
        if reference:
            raise InputError(f"{where}: {statistic!r} uses no reference; write it without @")
        return [NamedAttack(label, attack, None)]
    if not spec.references:
        raise InputError(f"{where}: {statistic!r} needs a reference; add one under `references`")
    if reference and reference not in spec.references:
        raise InputError(
            f"{where}: no reference {reference!r}; there are: {', '.join(spec.references)}"
        )
    chosen = [reference] if reference else list(spec.references)
    return [NamedAttack(f"{label}@{name}", attack, name) for name in chosen]


def _read_prompts(
    spec: SelfPromptReference, records: set[str], aside: list[SetAside], where: str
) -> tuple[str, ...]:
    """Prompts that are texts, none twice and none of them a record."""
    prompts: dict[str, str] = {}
    for path in spec.prompts:
        for row in read_texts(path, spec.text_column):
            if not isinstance(row.text, str) or not row.text.strip():
                aside.append(SetAside(row.where, None, "a prompt without text"))
                continue
            identifier = record_id(row.text)
            if identifier in records:
                aside.append(SetAside(row.where, identifier, "a prompt that is also a record"))
            elif identifier in prompts:
                aside.append(SetAside(row.where, identifier, "a prompt that was given before"))
            else:
                prompts[identifier] = row.text
    if not prompts:
        raise InputError(
            f"{where}: not one usable prompt in {', '.join(spec.prompts)}; prompts are texts that "
            "are not among the records"
        )
    return tuple(prompts.values())
