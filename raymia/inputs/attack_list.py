"""The attacks that an audit file asks for, or gives the means for."""

from __future__ import annotations

import raymia.attacks
from raymia.attacks import Attack, NamedAttack
from raymia.questions.base import Question
from raymia.questions.registry import asks_about_neighbors, questions_of
from raymia.spec import (
    AttackSpec,
    AuditSpec,
    MadeReference,
    OtherTarget,
    ShadowReference,
)
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.plugins import is_outside, load_plugins


def name_attacks(spec: AuditSpec) -> list[NamedAttack]:
    """The attacks an audit runs, each with each reference it can run with.

    Those from outside run where they are named, or where the kind of records is from outside, too.

    Raises
    ------
    InputError
        For a plugin that cannot be loaded, and an attack that is unknown or that the audit file
        does not give the means for.
    """
    load_plugins(spec.plugins)
    if spec.attacks is None:
        kinds = raymia.attacks.registry(spec.records.kind)
        own_alone = not is_outside(type(spec.records))
        wanted = [
            AttackSpec(attack=name)
            for name, kind in kinds.items()
            if not (own_alone and is_outside(kind))
            and not lacking(kind, spec)
            and not costs_extra(kind, spec)
        ]
    else:
        wanted = list(spec.attacks)
    problems: list[str] = []
    named: list[NamedAttack] = []
    for number, item in enumerate(wanted):
        try:
            named += with_references(item, spec, f"attacks[{number}]")
        except InputError as error:
            problems += error.problems
    if nothing := _nothing_to_combine(spec, named):
        problems.append(f"attacks: {nothing}")
    labels = [attack.label for attack in named]
    written = {item.attack for item in wanted}
    for label in sorted({x for x in labels if labels.count(x) > 1}):
        alone = statistic_of(label)
        problems.append(
            f"attacks: {label!r} is given twice, as {alone!r} runs with every reference; leave "
            "one of them out"
            if {alone, label} <= written and alone != label
            else f"attacks: {label!r} is given twice; give one of them a name of its own"
        )
    if problems:
        raise InputError(problems)
    return named


def _nothing_to_combine(spec: AuditSpec, named: list[NamedAttack]) -> str | None:
    """Say of an attack that combines the others' scores that it would learn from none."""
    combining = [item.label for item in named if "other_scores" in item.attack.needs]
    has_shadows = any(isinstance(one, ShadowReference) for one in spec.references.values())
    if not combining or not all(item.attack.is_fitted_on_labels(has_shadows) for item in named):
        return None
    others = [repr(item.label) for item in named if item.label not in combining]
    text = f"{combining[0]!r} combines the scores of other attacks"
    if not others:
        return f"{text}; name them too"
    are = "is" if len(others) == 1 else "are"
    return (
        f"{text}, and learns nothing from {listed(others)}, which {are} fitted on the labels of "
        "the same records; name attacks that are not, or give shadows to fit on"
    )


def lacking(kind: type[Attack], spec: AuditSpec, named: str | None = None) -> str | None:
    """What an audit file does not give that an attack needs; None where it gives everything.

    Parameters
    ----------
    named : the reference that it is asked for with, if any.
    """
    shadows = [r for r in spec.references.values() if isinstance(r, ShadowReference)]
    both_classes = spec.records.members and spec.records.non_members
    generated = [r for r in spec.references.values() if isinstance(r, MadeReference)]
    others = (t for t in spec.targets if isinstance(t, OtherTarget))
    generated_before = [target for target in others if target.is_generated]
    needs = {
        "reference": (
            named or _compared_with(spec),
            "needs a reference that is no shadow; add one under `references`"
            if shadows
            else "needs a reference; add one under `references`",
        ),
        "shadows": (shadows, "needs shadows; add references of `kind: shadow`"),
        "population": (
            spec.records.population,
            f"needs {spec.records.what} that are no members and are not scored; name a file of "
            "them as `population` under `records`",
        ),
        "judged_answers": (
            spec.records.are_judged,
            "needs answers that were wanted and such that were not; give records with chosen and "
            "rejected, or with a label",
        ),
        "other_scores": (
            both_classes,
            "learns from members and non-members; give both under `records`",
        ),
        "labels": (
            shadows or both_classes,
            "learns from members and non-members; give both under `records`, or shadows",
        ),
        "generated_images": (
            generated or generated_before,
            "looks at images that the target generates; add a reference of `kind: self_generated`, "
            "or a target of `samples`",
        ),
        "corpus": (spec.corpus, "needs token frequencies; add a section `corpus`"),
    }
    own = (text for need, (given, text) in needs.items() if need in kind.needs and not given)
    return next(own, None) or next(
        (lack for question in _first_questions(kind, spec) if (lack := question.lacking(spec))),
        None,
    )


def _compared_with(spec: AuditSpec) -> list[str]:
    """References that attacks run with where they name none: shadows have attacks of their own, and
    were trained on half of the records."""
    return [n for n, one in spec.references.items() if not isinstance(one, ShadowReference)]


def costs_extra(kind: type[Attack], spec: AuditSpec) -> bool:
    """Whether an attack asks what the audit file did not say it wants to pay for."""
    return any(question.is_extra(spec) for question in _first_questions(kind, spec))


def _first_questions(kind: type[Attack], spec: AuditSpec) -> list[type[Question]]:
    """The questions of an attack; where several have one name, the first speaks for them."""
    return [kinds[0] for kinds in questions_of(kind, spec.records.kind)]


def with_references(item: AttackSpec, spec: AuditSpec, where: str) -> list[NamedAttack]:
    """An attack, alone or with each reference it can run with, and with each kind of neighbors
    where they have names.

    Raises
    ------
    InputError
        For an attack that is unknown, or that the audit file does not give the means for.
    """
    written, _, neighbors = item.attack.partition("+")
    statistic, _, reference = written.partition("@")
    attack = raymia.attacks.build(statistic, dict(item.parameters), where, spec.records.kind)
    label = item.name or statistic
    if item.name is None and item.parameters:
        settings = ",".join(f"{k}={v}" for k, v in sorted(item.parameters.items()))
        label = f"{statistic}({settings})"
    lack = lacking(type(attack), spec, reference)
    if lack is not None:
        raise InputError(f"{where}: {statistic!r} {lack}")
    hoods = _neighbor_names(attack, neighbors, spec, where)
    if not attack.needs & {"reference", "reference_if_given"}:
        if reference:
            raise InputError(f"{where}: {statistic!r} uses no reference; write it without @")
        return [_named(label, attack, None, hood, where) for hood in hoods]
    if reference and reference not in spec.references:
        raise InputError(
            f"{where}: no reference {reference!r}; there are: {', '.join(spec.references)}"
        )
    chosen = [reference] if reference else _compared_with(spec)
    is_alone = "reference_if_given" in attack.needs and not reference
    pairs = [
        *([(label, None)] if is_alone else []),
        *((f"{label}@{name}", name) for name in chosen),
    ]
    return [_named(full, attack, name, hood, where) for full, name in pairs for hood in hoods]


def statistic_of(attack: str) -> str:
    """The statistic of an attack as an audit file names it, as `statistic@reference+neighbors`."""
    return attack.partition("+")[0].partition("@")[0]


def _named(
    label: str, attack: Attack, reference: str | None, neighbors: str, where: str
) -> NamedAttack:
    full = f"{label}+{neighbors}" if neighbors else label
    return NamedAttack(full, attack, reference, neighbors, where)


def _neighbor_names(attack: Attack, given: str, spec: AuditSpec, where: str) -> list[str]:
    """The names of neighbors that an attack runs with; "" for one that has none to choose from."""
    choice = [] if spec.neighbors is None else [name for name in spec.neighbors.named() if name]
    if not choice or not asks_about_neighbors(attack, spec.records.kind):
        if given:
            why = "uses no neighbors" if choice else "has one kind of neighbors, without a name"
            raise InputError(f"{where}: {attack.name!r} {why}; write it without +")
        return [""]
    if given and given not in choice:
        raise InputError(f"{where}: no neighbors {given!r}; there are: {', '.join(choice)}")
    return [given] if given else choice
