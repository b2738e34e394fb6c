"""What an audit of texts works on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from raymia.attacks import NamedAttack
from raymia.evidence.taken import Either, taken_by
from raymia.inputs.base import Inputs, Problems
from raymia.inputs.compatibility import impossible_attacks
from raymia.modalities.texts.modality import Texts
from raymia.modalities.texts.resolve_training import FIRST
from raymia.modalities.texts.trained import AsTrained, as_trained
from raymia.modalities.texts.tuned_bases import check_bases
from raymia.models.causal.adapters import WEIGHTS, another_base, is_off_at_first
from raymia.models.causal.resolver import CausalCheckpoint, resolve_causal_lm
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.resolver import Endpoint, resolve_endpoint
from raymia.models.idle import is_idle_lora
from raymia.models.paraphrasers.resolver import resolve_paraphraser
from raymia.prepare.corpus import check_corpus
from raymia.prepare.own_recipe import OwnRecipe
from raymia.prepare.prompts import refuse_prompts
from raymia.records.asked import also_asked
from raymia.records.base import Others, RecordSet, SetAside
from raymia.records.structured import format_of_records, read_others, read_records
from raymia.spec import (
    AuditSpec,
    EndpointTarget,
    InfillNeighbors,
    MaskFillNeighbors,
    ModelSpec,
    RecordFormat,
    SelfPromptReference,
    ShadowReference,
    TargetSpec,
    TextRecordsSpec,
    text_neighbors,
)
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.once import Once
from raymia.util.optional import require
from raymia.util.reasons import CAME


def resolve_texts(
    spec: AuditSpec,
    places: Sequence[str],
    given: TextRecordsSpec,
    attacks: list[NamedAttack],
    problems: Problems,
) -> Inputs:
    """Read and check everything of an audit of texts.

    See :func:`raymia.modalities.resolve.resolve_inputs`.
    """
    attempt = problems.attempt
    kind = attempt(format_of_records, given)
    records = None if kind is None else attempt(read_records, given, kind)
    once = Once()
    resolved = _targets(spec, places, once, problems)
    references = _references(spec, once, problems)
    prompted = any(isinstance(one, SelfPromptReference) for one in spec.references.values())
    others_given = prompted or given.population or given.known_members
    taken: Mapping[str, str] = {}
    if records is not None and others_given:
        taken = taken_by(records.table["record_id"])
    aside: list[SetAside] = [] if records is None else list(records.set_aside)
    prompts: dict[str, tuple[str, ...]] = {}
    shadow_members: dict[str, frozenset[str]] = {}
    for name, reference in spec.references.items():
        if isinstance(reference, SelfPromptReference):
            prompts[name] = ()
            where = f"references.{name}.prompts"
            if attempt(check_prompts, reference, kind or "text", where):
                others = Others("prompt", where, taken, aside)
                if records is not None and kind not in (None, "text"):
                    among = also_asked(kind, records.table["payload"])
                    others = replace(others, among=among)
                column = reference.text_column
                read = attempt(read_others, reference.prompts, kind, column, others)
                prompts[name] = tuple((read or {}).values())
        elif isinstance(reference, ShadowReference):
            where = f"references.{name}.members"
            others = Others("member of a shadow", where, aside=aside, each=[])
            column = reference.text_column
            read = attempt(read_others, reference.members, kind, column, others)
            shadow_members[name] = frozenset(read or ())
    recipes = _recipes(spec, places, problems) if prompts else {}
    check_bases(spec, references, recipes, problems)
    unscored: dict[str, dict[str, str]] = {"population": {}, "known_members": {}}
    unread = set()
    for key, what in (("population", "text of the population"), ("known_members", "known member")):
        if paths := getattr(given, key):
            others = Others(what, f"records.{key}", taken, aside)
            read = attempt(read_others, paths, kind, given.text_column, others)
            unread |= set() if read is not None else {key}
            unscored[key] = read or {}
            taken = Either(taken, dict.fromkeys(unscored[key], f"a {what}"))
    if spec.corpus is not None:
        attempt(check_corpus, spec.corpus)
    attempt(check_writers, spec, resolved)
    read_as = AsTrained(resolved, references)
    if records is not None:
        payloads = records.table["payload"].slice(0, FIRST).to_pylist()
        read_as = as_trained(read_as, spec, places, payloads, once, problems)
        for name, given_prompts in prompts.items():
            attempt(check_what_is_asked, spec, name, given_prompts, read_as.targets)
    models = read_as.targets, read_as.references
    count = None if "population" in unread else len(unscored["population"])
    left_out = attempt(impossible_attacks, spec, attacks, *models, count) or {}
    sections = text_neighbors(spec.neighbors)
    if sections:
        attempt(require, "rapidfuzz", "measures of neighbors", "neighbors")
    paraphrasers = {}
    for name, section in sections.items():
        if isinstance(section, MaskFillNeighbors | InfillNeighbors):
            where = f"neighbors.{name}.model" if name else "neighbors.model"
            found = attempt(resolve_paraphraser, section, where, once=once)
            if found is not None:
                paraphrasers[name] = found
    problems.refuse()
    assert records is not None
    return Inputs(
        spec,
        Texts(
            prompts,
            paraphrasers,
            read_as.training,
            read_as.on_other_parts,
            read_as.otherwise,
            recipes,
            tuple(
                (target.training, target)
                for target in read_as.targets.values()
                if isinstance(target, CausalCheckpoint | Endpoint) and target.training is not None
            ),
        ),
        RecordSet(records.table, aside),
        attacks,
        {name: target for name, target in read_as.targets.items() if target is not None},
        read_as.references,
        population=unscored["population"],
        known_members=unscored["known_members"],
        shadow_members=shadow_members,
        left_out=left_out,
        assumed=read_as.assumed,
        noted=(
            *records.remark_lines(),
            *_of_adapters(read_as.targets, once),
            *_of_batches(read_as.targets),
        ),
    )  # fmt: skip


def _of_adapters(targets: Mapping[str, AnyCheckpoint | None], once: Once) -> Iterator[str]:
    """A sentence for each target whose adapter names another base than it is put on, or changes
    some answers alone."""
    for name, target in targets.items():
        if not isinstance(target, CausalCheckpoint) or target.adapter is None:
            continue
        if (named := another_base(target.adapter, target.path)) is not None:
            yield (
                f"{name}: its adapter names another base than it is put on; where these are not "
                f"the same weights, name the adapter's own as `model`{CAME}{named}, {target.path}"
            )
        if is_idle_lora(Path(target.adapter) / WEIGHTS, once):
            yield (
                f"{name}: its adapter changes nothing: all that it adds is zero, as before its "
                "first step of training; it answers as its base does"
            )
        if once(is_off_at_first, target.adapter):
            yield (
                f"{name}: its adapter is an activated LoRA, which changes what comes after the "
                "tokens that invoke it; a record without them is answered by the base alone"
            )


def _of_batches(targets: Mapping[str, AnyCheckpoint | None]) -> Iterator[str]:
    """A sentence on the targets that are asked one text at a time."""
    alone = [
        name for name, target in targets.items()
        if isinstance(target, CausalCheckpoint) and target.one_by_one
    ]  # fmt: skip
    if alone:
        yield (
            f"{listed(alone, 3)}: asked one text at a time, as other texts in a batch would change "
            "the answers of such 8-bit weights; nf4, and weights saved in fp8, are asked in "
            "batches, which is faster"
        )


def _targets(
    spec: AuditSpec, places: Sequence[str], once: Once, problems: Problems
) -> dict[str, AnyCheckpoint | None]:
    """The targets by name; None for one that was refused."""
    on_gpu = spec.resources.target.gpus > 0
    found: dict[str, AnyCheckpoint | None] = {}
    for place, target in zip(places, spec.targets, strict=True):
        if isinstance(target, EndpointTarget):
            found[target.name] = problems.attempt(resolve_endpoint, target, f"{place}.endpoint")
        elif isinstance(target, TargetSpec):
            found[target.name] = problems.attempt(
                resolve_causal_lm, target, f"{place}.model", on_gpu=on_gpu, once=once
            )
    return found


def _recipes(spec: AuditSpec, places: Sequence[str], problems: Problems) -> dict[str, OwnRecipe]:
    """How targets were trained whose manifests are known, by name."""
    found: dict[str, OwnRecipe] = {}
    read: dict[str, OwnRecipe | None] = {}
    for place, target in zip(places, spec.targets, strict=True):
        if isinstance(target, TargetSpec) and target.trained_by is not None:
            if target.trained_by not in read:
                where = f"{place}.trained_by"
                read[target.trained_by] = problems.attempt(OwnRecipe.read, target.trained_by, where)
            recipe = read[target.trained_by]
            if recipe is not None:
                found[target.name] = recipe
    return found


def _references(spec: AuditSpec, once: Once, problems: Problems) -> dict[str, AnyCheckpoint]:
    """The references that exist already, by name, without those that were refused."""
    on_gpu = spec.resources.reference.gpus > 0
    found: dict[str, AnyCheckpoint] = {}
    for name, reference in spec.references.items():
        where = f"references.{name}"
        if isinstance(reference, SelfPromptReference):
            if reference.fine_tune.lora is not None:
                problems.attempt(require, "peft", "adapters", f"{where}.fine_tune.lora")
            continue
        assert isinstance(reference, ModelSpec), "the spec refuses others"
        checkpoint = problems.attempt(
            resolve_causal_lm, reference, f"{where}.model", on_gpu=on_gpu, once=once
        )
        if checkpoint is not None:
            found[name] = checkpoint
    return found


def check_prompts(reference: SelfPromptReference, kind: RecordFormat, where: str) -> bool:
    """Whether there are prompts to be read.

    Raises
    ------
    InputError
        If no target can write records of this format, or a key means nothing for them.
    """
    if kind in ("preference", "unpaired"):
        raise InputError(
            f"{where}: a target writes answers, and not which of two is preferred; leave this "
            "reference out, and compare with the model that the training started from"
        )
    if reference.prompts == "none" and kind not in ("text", "chat"):
        raise InputError(
            f"{where}: `none` has the target write prompts, and where one ends cannot be told in "
            f"records of the format {kind}; name files of prompts"
        )
    is_cut = kind == "text" and reference.prompts != "none"
    if not is_cut and reference.preset is None and "prompt_tokens" in reference.model_fields_set:
        raise InputError(
            f"{where.removesuffix('prompts')}prompt_tokens: texts of files alone are cut to their "
            "first tokens, and here the target is given whole prompts, or writes them; leave the "
            "key out"
        )
    return reference.prompts != "none"


def check_what_is_asked(
    spec: AuditSpec,
    name: str,
    prompts: Sequence[str],
    targets: Mapping[str, AnyCheckpoint | None],
) -> None:
    """Refuse prompts of a reference that a target cannot use, or that all ask for one thing."""
    reference = spec.references[name]
    assert isinstance(reference, SelfPromptReference)
    writers = {
        (target.reading, target.context): target
        for target in targets.values()
        if isinstance(target, CausalCheckpoint)
    }
    for target in writers.values():
        try:
            refuse_prompts(target, prompts, reference)
        except InputError as error:
            said = str(error).removeprefix("self-prompting: ")
            raise InputError(f"references.{name}.prompts: {said}") from None


def check_writers(spec: AuditSpec, targets: Mapping[str, AnyCheckpoint | None]) -> None:
    """Refuse references of texts that a target would have to write that writes none."""
    written = {
        name: one for name, one in spec.references.items() if isinstance(one, SelfPromptReference)
    }
    problems = [
        f"references.{reference}: a self-prompt reference is made from texts that the target "
        f"writes, and {name!r} is an {target.family}, which is asked about given texts only"
        for name, target in targets.items()
        if target is not None and target.capabilities.why_not({"generation"})
        for reference in written
    ] + [
        f"references.{name}.written_by.served_model: {one.written_by.served_model!r} is one model, "
        f"and each of {len(targets)} targets writes texts of its own; leave it out and serve each "
        "under its name here, or audit them one by one"
        for name, one in written.items()
        if one.written_by is not None and one.written_by.served_model and len(targets) > 1
    ]
    if problems:
        raise InputError(problems)
