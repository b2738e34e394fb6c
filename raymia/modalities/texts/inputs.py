"""What an audit of texts works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raymia.attacks import NamedAttack
from raymia.inputs.base import Inputs, Problems
from raymia.inputs.compatibility import impossible_attacks
from raymia.modalities.texts.modality import Texts
from raymia.modalities.texts.trained import Trained
from raymia.models.causal.resolver import CausalCheckpoint, resolve_causal_lm
from raymia.models.causal.training import Training
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.resolver import resolve_endpoint
from raymia.models.paraphrasers.resolver import resolve_paraphraser
from raymia.prepare.corpus import check_corpus
from raymia.records.base import RecordSet, SetAside
from raymia.records.structured import read_others, read_records
from raymia.spec import (
    AuditSpec,
    EndpointTarget,
    InfillNeighbors,
    MaskFillNeighbors,
    ModelReference,
    ModelSpec,
    RecordFormat,
    SelfPromptReference,
    ShadowReference,
    TargetSpec,
    TextNeighbors,
    TextRecordsSpec,
)
from raymia.util.errors import InputError
from raymia.util.once import Once
from raymia.util.optional import require

FIRST = 4_000
"""Records among which those are chosen that a training is tried on."""


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
    kind = given.format or "text"
    records = attempt(read_records, given, kind)
    target_gpu = spec.resources.target.gpus > 0
    reference_gpu = spec.resources.reference.gpus > 0
    once = Once()
    resolved: dict[str, AnyCheckpoint | None] = {}
    for place, target in zip(places, spec.targets, strict=True):
        if isinstance(target, EndpointTarget):
            resolved[target.name] = attempt(resolve_endpoint, target, f"{place}.endpoint")
        elif isinstance(target, TargetSpec):
            resolved[target.name] = attempt(
                resolve_causal_lm, target, f"{place}.model", on_gpu=target_gpu, once=once
            )
    references: dict[str, AnyCheckpoint] = {}
    prompts: dict[str, tuple[str, ...]] = {}
    taken = {} if records is None else dict.fromkeys(records.ids, "a record")
    aside: list[SetAside] = [] if records is None else list(records.set_aside)
    shadow_members: dict[str, frozenset[str]] = {}
    for name, reference in spec.references.items():
        where = f"references.{name}"
        if isinstance(reference, SelfPromptReference):
            prompts[name] = ()
            if attempt(check_prompts, reference, kind, f"{where}.prompts"):
                found_prompts = attempt(
                    read_others,
                    list(reference.prompts),
                    kind,
                    reference.text_column,
                    "prompt",
                    taken,
                    aside,
                    f"{where}.prompts",
                )
                prompts[name] = tuple((found_prompts or {}).values())
            if reference.fine_tune.lora is not None:
                attempt(require, "peft", "adapters", f"{where}.fine_tune.lora")
            base = spec.references[reference.base]
            if isinstance(base, ModelReference) and base.adapter is not None:
                problems.found.append(
                    f"{where}.base: {reference.base!r} has an adapter, and only a plain model can "
                    "be fine-tuned; merge the adapter into it first"
                )
            if isinstance(base, ModelReference) and base.gguf_file is not None:
                problems.found.append(
                    f"{where}.base: {reference.base!r} is a GGUF file, and only a model in "
                    "safetensors can be fine-tuned; give the model that it was made from"
                )
            continue
        assert isinstance(reference, ModelSpec), "the spec refuses others"
        found = attempt(
            resolve_causal_lm, reference, f"{where}.model", on_gpu=reference_gpu, once=once
        )
        if found is not None:
            references[name] = found
        if isinstance(reference, ShadowReference):
            members = attempt(
                read_others,
                reference.members,
                kind,
                reference.text_column,
                "member of a shadow",
                {},
                [],
                f"{where}.members",
            )
            shadow_members[name] = frozenset(members or ())
    attempt(check_bases, spec, references)
    column = given.text_column
    others: dict[str, dict[str, str]] = {"population": {}, "known_members": {}}
    for key, what in (("population", "text of the population"), ("known_members", "known member")):
        paths = getattr(given, key)
        if paths:
            others[key] = (
                attempt(read_others, paths, kind, column, what, taken, aside, f"records.{key}")
                or {}
            )
            taken = taken | dict.fromkeys(others[key], f"a {what}")
    if spec.corpus is not None:
        attempt(check_corpus, spec.corpus)
    attempt(check_writers, spec, resolved)
    assumed: list[str] = []
    training: Training | None = None
    otherwise: dict[tuple[str, str], CausalCheckpoint] = {}
    if records is not None:
        payloads = records.table["payload"].slice(0, FIRST).to_pylist()
        trained = Trained(spec, kind, given, payloads, once)
        training, otherwise, assumed = trained.read(places, resolved, references, problems)
    left_out = attempt(impossible_attacks, spec, attacks, resolved, references) or {}
    if isinstance(spec.neighbors, TextNeighbors):
        attempt(require, "rapidfuzz", "measures of neighbors", "neighbors")
    paraphraser = None
    if isinstance(spec.neighbors, MaskFillNeighbors | InfillNeighbors):
        paraphraser = attempt(resolve_paraphraser, spec.neighbors, "neighbors.model", once=once)
    problems.refuse()
    assert records is not None
    return Inputs(
        spec,
        Texts(prompts, paraphraser, training, otherwise),
        RecordSet(records.table, aside),
        attacks,
        {name: target for name, target in resolved.items() if target is not None},
        references,
        population=others["population"],
        known_members=others["known_members"],
        shadow_members=shadow_members,
        left_out=left_out,
        assumed=tuple(assumed),
    )


def check_bases(spec: AuditSpec, references: Mapping[str, AnyCheckpoint]) -> None:
    """Refuse to fine-tune weights that were saved quantized."""
    problems = [
        f"references.{name}.base: {kind.base!r} was saved quantized ({base.facts.saved_as}), and "
        "quantized weights cannot be fine-tuned; give the model that it was made from"
        for name, kind in spec.references.items()
        if isinstance(kind, SelfPromptReference)
        and isinstance(base := references.get(kind.base), CausalCheckpoint)
        and base.facts.saved_as is not None
    ]
    if problems:
        raise InputError(problems)


def check_prompts(reference: SelfPromptReference, kind: RecordFormat, where: str) -> bool:
    """Whether there are prompts to be read.

    Raises
    ------
    InputError
        If no target can write records of this format.
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
    return reference.prompts != "none"


def check_writers(spec: AuditSpec, targets: Mapping[str, AnyCheckpoint | None]) -> None:
    """Refuse references of texts that a target would have to write that writes none."""
    problems = [
        f"references.{reference}: a self-prompt reference is made from texts that the target "
        f"writes, and {name!r} is an {target.family}, which is asked about given texts only"
        for name, target in targets.items()
        if target is not None and target.capabilities.why_not({"generation"})
        for reference, kind in spec.references.items()
        if isinstance(kind, SelfPromptReference)
    ]
    if problems:
        raise InputError(problems)
