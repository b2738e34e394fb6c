"""What of the attacks the models of an audit make impossible, found before one is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raymia.attacks import NamedAttack
from raymia.models.checkpoint import AnyCheckpoint
from raymia.questions.registry import families_for, model_needs
from raymia.spec import AuditSpec, MadeReference
from raymia.util.errors import InputError
from raymia.util.listing import listed

if TYPE_CHECKING:
    from raymia.inputs.base import Inputs


def impossible_attacks(
    spec: AuditSpec,
    attacks: Sequence[NamedAttack],
    targets: Mapping[str, AnyCheckpoint | None],
    references: Mapping[str, AnyCheckpoint],
    population: int | None,
) -> dict[tuple[str, str], str]:
    """Why an attack cannot be run on a target, by target and label; refused where it is named.

    Parameters
    ----------
    targets, references : as they were resolved; None for one that was refused.
    population : usable records of it; None where it could not be read, which is said elsewhere.

    Raises
    ------
    InputError
        For attacks that the audit file names.
    """
    reasons: dict[tuple[str, str], str] = {}
    by_family: dict[str, list[_Requirements]] = {}
    for name, target in targets.items():
        if target is None:
            continue
        if target.family not in by_family:
            by_family[target.family] = [
                _Requirements.of(attack, spec, target.family) for attack in attacks
            ]
        for attack in by_family[target.family]:
            found = _why_not(spec, attack, target, references)
            few = population is not None and attack.min_population > population
            if spec.records.population and few:
                found = [
                    *found,
                    f"it needs {attack.min_population} records of the population, and "
                    f"{population:,} are usable",
                ]
            if found:
                reasons[name, attack.label] = "; ".join(found)
    if reasons and spec.attacks is not None:
        raise InputError(
            f"attacks: {label!r} cannot be run on {target!r}: {reason}"
            for (target, label), reason in reasons.items()
        )
    return reasons


@dataclass(frozen=True)
class _Requirements:
    """What an attack asks of models of one family."""

    label: str
    reference: str | None
    families: frozenset[str] | None
    needs: frozenset[str]
    min_population: int

    @classmethod
    def of(cls, named: NamedAttack, spec: AuditSpec, family: str) -> _Requirements:
        kind = spec.records.kind
        families = families_for(named.attack, kind)
        needs = model_needs(named.attack, kind, family)
        return cls(named.label, named.reference, families, needs, named.attack.min_population)


def _why_not(
    spec: AuditSpec,
    attack: _Requirements,
    target: AnyCheckpoint,
    references: Mapping[str, AnyCheckpoint],
) -> list[str]:
    """What an attack asks and needs that its models cannot give; nothing where it can be run."""
    families, needs = attack.families, attack.needs
    if reasons := target.capabilities.why_not(needs - (families or frozenset())):
        return reasons
    if families is not None and target.family not in families:
        wanted = " or ".join(sorted(families))
        return [
            f"it can be run on models of the kind {wanted}, and this is of the kind {target.family}"
        ]
    if attack.reference is None:
        return []
    kind = spec.references[attack.reference]
    if isinstance(kind, MadeReference) and target.capabilities.why_not({"generation"}):
        return ["no reference can be made of what this kind of model generates"]
    made_from = kind.base if isinstance(kind, MadeReference) else attack.reference
    reference = None if made_from is None else references.get(made_from)
    if reference is None:
        return []
    if reference.answers_like != target.answers_like:
        return [f"reference {attack.reference!r} is of another kind than the target"]
    if "token_ids" in needs and _tokenizers_differ(target, reference):
        return [
            f"it compares target and reference token by token, and the tokenizer of "
            f"{attack.reference!r} cuts texts otherwise than the target's"
        ]
    return []


def _tokenizers_differ(one: AnyCheckpoint, other: AnyCheckpoint) -> bool:
    """Whether two models are known to have different tokenizers."""
    found = {one.tokenization, other.tokenization}
    return len(found) > 1 and None not in found


def identical_models(inputs: Inputs) -> list[str]:
    """Say which references are the target itself, with which nothing can be told."""
    equal = {name: [repr(target) for target in inputs.also_as(name)] for name in inputs.references}
    return [
        f"reference {reference!r} is the same model as target{'s' if len(alike) > 1 else ''} "
        f"{listed(alike)}: attacks with it can tell nothing there"
        for reference, alike in equal.items()
        if alike
    ]
