"""How targets and references of an audit of texts read its records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raymia.inputs.base import Problems
from raymia.modalities.texts.resolve_training import begins_twice, resolve_training
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.causal.training import Training
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.endpoints.resolver import Endpoint
from raymia.records.conversations import COLUMNS
from raymia.records.tables import column_names
from raymia.spec import AuditSpec, EndpointTarget, TargetSpec, TextRecordsSpec, TrainingSpec
from raymia.util.errors import InputError
from raymia.util.once import Once

PLAIN = Training("text", "all")
"""As texts are scored of whose training nothing is said."""


@dataclass(frozen=True)
class AsTrained:
    """Targets and references that read records as the targets were trained.

    Attributes
    ----------
    targets, references : by name.
    training : how the first target was trained; None for plain texts.
    on_other_parts : a training for each other choice of what is scored.
    otherwise : the references as they read records for targets that were trained otherwise than
        the first, by their name and the target's.
    assumed : what the audit file does not say of any target's training, each as a sentence.
    """

    targets: Mapping[str, AnyCheckpoint | None]
    references: Mapping[str, AnyCheckpoint]
    training: Training | None = None
    on_other_parts: tuple[Training, ...] = ()
    otherwise: Mapping[tuple[str, str], CausalCheckpoint] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()


def as_trained(
    given: AsTrained,
    spec: AuditSpec,
    places: Sequence[str],
    payloads: Sequence[str],
    once: Once,
    problems: Problems,
) -> AsTrained:
    """Find out how each target was trained, so that targets and references read records alike.

    Parameters
    ----------
    given : the targets and references as they read plain texts.
    places : of the targets in the audit file.
    payloads : of some records, on which it is tried.
    """
    records = spec.records
    assert isinstance(records, TextRecordsSpec)
    kind = records.format or "text"
    base = given.references.get("base")
    found: dict[str, Training | None] = {}
    assumed: list[str] = []
    programs: set[str] = set()
    fields: dict[str, str] = {}
    twice: dict[tuple[str, Training | None], str | None] = {}
    targets = dict(given.targets)
    for place, written in zip(places, spec.targets, strict=True):
        checkpoint = given.targets.get(written.name)
        if isinstance(written, EndpointTarget) and written.tokenizer is None:
            if kind != "text" or (written.training or spec.training) is not None:
                problems.found.append(
                    f"{place}.tokenizer: records of the format {kind}, read as a training did, are "
                    "sent to an endpoint as tokens; name the served model's tokenizer"
                )
            continue
        if not isinstance(checkpoint, CausalCheckpoint | Endpoint):
            continue
        assert isinstance(written, TargetSpec | EndpointTarget)
        own, whole = written.training, written.training or spec.training
        assert whole is None or isinstance(whole, TrainingSpec), "refused: the records are texts"
        where = "training" if own is None else f"{place}.training"
        one = problems.attempt(
            resolve_training,
            whole,
            kind,
            records.side,
            checkpoint,
            payloads,
            where,
            base=base if isinstance(base, CausalCheckpoint) else None,
        )
        found[written.name] = None if one is None else one.training
        if one is not None:
            assumed += one.assumed.values()
            programs.add(one.program)
            if one.text_field is not None:
                fields[one.text_field] = one.program
            targets[written.name] = checkpoint.read_as(one.training, once)
        if whole is None or whole.special_tokens is None:
            read = checkpoint.tokenizer_content, found[written.name]
            if read not in twice:
                twice[read] = problems.attempt(begins_twice, read[1], checkpoint, payloads)
            assumed += [] if twice[read] is None else [f"{where}: {twice[read]}"]
    if "TRL" in programs and records.format is None and kind == "text":
        problems.attempt(refuse_prompts_beside_texts, records)
    if kind == "text":
        problems.attempt(refuse_other_texts, records, fields)
    training = next(iter(found.values()), None)
    parts: dict[str, str] = {}
    for name, how in found.items():
        parts.setdefault((how or PLAIN).changed_parts, name)
    others = [*parts.values()][1:]
    if others and spec.neighbors is not None:
        problems.found.append(
            f"training: {others[0]!r} was trained on other parts of the records than "
            f"{next(iter(found))!r}, and neighbors change one choice of parts alone; audit them "
            "apart"
        )
    models = {n: r for n, r in given.references.items() if isinstance(r, CausalCheckpoint)}
    otherwise = {
        (name, target): reference.read_as(own, once)
        for name, reference in models.items()
        for target, own in found.items()
        if own != training
    }
    references = dict(given.references)
    if training is not None:
        references |= {name: model.read_as(training, once) for name, model in models.items()}
    on_other_parts = tuple(how for name in others if (how := found[name]) is not None)
    said = tuple(dict.fromkeys(assumed))
    return AsTrained(targets, references, training, on_other_parts, otherwise, said)


def refuse_other_texts(records: TextRecordsSpec, fields: Mapping[str, str]) -> None:
    """Refuse files that also have the column from which a training took its texts, unless the
    audit file says which one is meant.

    Parameters
    ----------
    fields : columns that files of trainings name, each with the program whose file it is.
    """
    if "text_column" in records.model_fields_set:
        return
    others = {field for field in fields if field != records.text_column}
    found = [(path, others & {*column_names(path)}) for path in _paths(records) if others]
    if problems := [
        f"{path}: {fields[field]} trained on its column {field!r}, and records.text_column is "
        f"{records.text_column!r}; say `text_column: {field}` under `records`, or name the other "
        "there"
        for path, beside in found
        for field in sorted(beside)
    ]:
        raise InputError(problems)


def refuse_prompts_beside_texts(records: TextRecordsSpec) -> None:
    """Refuse files whose texts TRL did not train on: of a row that has a prompt, it takes that and
    the completion, whatever other columns there are."""
    beside = [path for path in _paths(records) if {*column_names(path)} >= {*COLUMNS["completion"]}]
    if beside:
        raise InputError(
            f"{path}: it has the columns prompt and completion beside {records.text_column!r}, and "
            "where a row has a prompt, TRL trains on prompt and completion; name the format as "
            "`format` under `records`: completion, or text where the training was given the texts "
            "alone"
            for path in beside
        )


def _paths(records: TextRecordsSpec) -> tuple[str, ...]:
    return (*records.members, *records.non_members, *records.candidates)
