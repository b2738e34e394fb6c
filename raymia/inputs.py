"""What an audit works on, resolved and checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

import raymia.attacks
from raymia.attacks import Attack, NamedAttack
from raymia.compatibility import impossible_attacks
from raymia.corpus import check_corpus
from raymia.errors import InputError
from raymia.files import check_can_write
from raymia.models.endpoint import Endpoint, resolve_endpoint
from raymia.models.source import Checkpoint, Hashes, resolve_checkpoint
from raymia.records import RecordSet, SetAside, read_other_texts, read_records
from raymia.spec import (
    AttackSpec,
    AuditSpec,
    EndpointTarget,
    MaskFillNeighbors,
    ModelReference,
    ModelSpec,
    SelfPromptReference,
    ShadowReference,
    SubstituteNeighbors,
)


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
    population, known_members : texts that are no records, by record id.
    shadow_members : ids of what each shadow was trained on, by its name.
    left_out : why an attack of the default list is not run on a target, by target and label.
    """

    spec: AuditSpec
    records: RecordSet
    attacks: list[NamedAttack]
    targets: dict[str, Checkpoint | Endpoint]
    references: dict[str, Checkpoint]
    prompts: dict[str, tuple[str, ...]]
    paraphraser: Checkpoint | None
    population: dict[str, str]
    known_members: dict[str, str]
    shadow_members: dict[str, frozenset[str]]

    @property
    def texts(self) -> pa.Table:
        """All texts that a model may be asked about: the records, then the population."""
        records = self.records.table.select(["record_id", "payload"])
        others = [list(self.population), list(self.population.values())]
        return pa.concat_tables([records, pa.table(others, schema=records.schema)])

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

    for key in ("output", "store"):
        attempt(check_can_write, getattr(spec, key), key)
    attacks = attempt(name_attacks, spec) or []
    records = attempt(read_records, spec.records)
    target_gpu = spec.resources.target.gpus > 0
    reference_gpu = spec.resources.reference.gpus > 0
    hashes: Hashes = {}
    targets = {
        target.name: attempt(resolve_endpoint, target, f"targets[{number}].endpoint")
        if isinstance(target, EndpointTarget)
        else attempt(
            resolve_checkpoint, target, f"targets[{number}].model", on_gpu=target_gpu, hashes=hashes
        )
        for number, target in enumerate(spec.targets)
    }
    references: dict[str, Checkpoint] = {}
    prompts: dict[str, tuple[str, ...]] = {}
    taken = {} if records is None else dict.fromkeys(records.ids, "a record")
    aside: list[SetAside] = [] if records is None else list(records.set_aside)
    shadow_members: dict[str, frozenset[str]] = {}
    for name, reference in spec.references.items():
        where = f"references.{name}"
        if isinstance(reference, SelfPromptReference):
            prompts[name] = tuple(
                (
                    attempt(
                        read_other_texts,
                        reference.prompts,
                        reference.text_column,
                        "prompt",
                        taken,
                        aside,
                        f"{where}.prompts",
                    )
                    or {}
                ).values()
            )
            base = spec.references[reference.base]
            if isinstance(base, ModelReference) and base.adapter is not None:
                problems.append(
                    f"{where}.base: {reference.base!r} has an adapter, and only a plain model can "
                    "be fine-tuned; merge the adapter into it first"
                )
            if isinstance(base, ModelReference) and base.gguf_file is not None:
                problems.append(
                    f"{where}.base: {reference.base!r} is a GGUF file, and only a model in "
                    "safetensors can be fine-tuned; give the model that it was made from"
                )
            continue
        found = attempt(
            resolve_checkpoint, reference, f"{where}.model", on_gpu=reference_gpu, hashes=hashes
        )
        if found is not None:
            references[name] = found
        if isinstance(reference, ShadowReference):
            members = attempt(
                read_other_texts,
                reference.members,
                reference.text_column,
                "member of a shadow",
                {},
                [],
                f"{where}.members",
            )
            shadow_members[name] = frozenset(members or ())
    column = spec.records.text_column
    others: dict[str, dict[str, str]] = {"population": {}, "known_members": {}}
    for key, what in (("population", "text of the population"), ("known_members", "known member")):
        paths = getattr(spec.records, key)
        if paths:
            found = attempt(read_other_texts, paths, column, what, taken, aside, f"records.{key}")
            others[key] = found or {}
            taken = taken | dict.fromkeys(others[key], f"a {what}")
    if spec.corpus is not None:
        attempt(check_corpus, spec.corpus)
    left_out = attempt(impossible_attacks, spec, attacks, targets, references) or {}
    paraphraser = None
    if spec.neighbors is not None and not isinstance(spec.neighbors, SubstituteNeighbors):
        model = ModelSpec(
            model=spec.neighbors.model, revision=spec.neighbors.revision, dtype="float32"
        )
        paraphraser = attempt(
            resolve_checkpoint,
            model,
            "neighbors.model",
            on_gpu=False,
            encoder_decoder=isinstance(spec.neighbors, MaskFillNeighbors),
        )
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
        others["population"],
        others["known_members"],
        shadow_members,
        left_out,
    )


def name_attacks(spec: AuditSpec) -> list[NamedAttack]:
    """The attacks an audit runs, each with each reference it can run with.

    Raises
    ------
    InputError
        For an attack that is unknown, or that the audit file does not give the means for.
    """
    if spec.attacks is None:
        kinds = raymia.attacks.registry()
        wanted = [
            AttackSpec(attack=name)
            for name, kind in kinds.items()
            if lacking(kind, spec) is None and not costs_extra(kind, spec)
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
    if named and all(item.attack.combines for item in named):
        problems.append(
            f"attacks: {named[0].label!r} combines the scores of other attacks; name them too"
        )
    labels = [attack.label for attack in named]
    for label in sorted({x for x in labels if labels.count(x) > 1}):
        problems.append(f"attacks: {label!r} is given twice; give one of them a name of its own")
    if problems:
        raise InputError(problems)
    return named


def lacking(kind: type[Attack], spec: AuditSpec) -> str | None:
    """What an audit file does not give that an attack needs; None where it gives everything."""
    shadows = [r for r in spec.references.values() if isinstance(r, ShadowReference)]
    needs = (
        (kind.uses_reference, spec.references, "needs a reference; add one under `references`"),
        (kind.uses_shadows, shadows, "needs shadows; add references of `kind: shadow`"),
        (
            "neighbors" in kind.asks,
            spec.neighbors,
            "compares records with their neighbors; add a section `neighbors`",
        ),
        (
            kind.uses_population or "prefixed" in kind.asks,
            spec.records.population,
            "needs texts that are no members and are not scored; name a file of them as "
            "`population` under `records`",
        ),
        (
            "member_prefixed" in kind.asks,
            spec.records.known_members,
            "needs members that are not scored; name a file of them as `known_members` under "
            "`records`",
        ),
        (
            kind.combines,
            spec.records.members and spec.records.non_members,
            "learns from members and non-members; give both under `records`",
        ),
        (kind.uses_corpus, spec.corpus, "needs token frequencies; add a section `corpus`"),
    )
    return next((text for needed, given, text in needs if needed and not given), None)


def costs_extra(kind: type[Attack], spec: AuditSpec) -> bool:
    """Whether an attack asks what the audit file did not say it wants to pay for."""
    return any(
        question in kind.asks and getattr(spec.probes, question) is None
        for question in ("swaps", "noise", "samples", "gradient")
    )


def _with_references(item: AttackSpec, spec: AuditSpec, where: str) -> list[NamedAttack]:
    statistic, _, reference = item.attack.partition("@")
    attack = raymia.attacks.build(statistic, dict(item.parameters), where)
    label = item.name or statistic
    if item.name is None and item.parameters:
        settings = ",".join(f"{k}={v}" for k, v in sorted(item.parameters.items()))
        label = f"{statistic}({settings})"
    lack = lacking(type(attack), spec)
    if lack is not None:
        raise InputError(f"{where}: {statistic!r} {lack}")
    if not attack.uses_reference:
        if reference:
            raise InputError(f"{where}: {statistic!r} uses no reference; write it without @")
        return [NamedAttack(label, attack, None)]
    if reference and reference not in spec.references:
        raise InputError(
            f"{where}: no reference {reference!r}; there are: {', '.join(spec.references)}"
        )
    chosen = [reference] if reference else list(spec.references)
    return [NamedAttack(f"{label}@{name}", attack, name) for name in chosen]
