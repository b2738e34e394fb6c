"""What an audit of images works on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow.compute as pc

from raymia.attacks import NamedAttack
from raymia.evidence.taken import taken_by
from raymia.inputs.base import Inputs, Problems
from raymia.inputs.compatibility import impossible_attacks
from raymia.modalities.images.generation import check_generation, read_prompts, record_id_of
from raymia.modalities.images.headers import header_lines, with_headers
from raymia.modalities.images.means import means_of
from raymia.modalities.images.modality import Images
from raymia.modalities.images.prior import prior_lines
from raymia.modalities.images.samples import Generated, read_samples
from raymia.modalities.images.trained import (
    assumed_of,
    facts_of,
    preparation_of,
    read_as_trained,
    references_as_trained,
    said_of,
)
from raymia.models.denoisers.as_trained import check_marks
from raymia.models.denoisers.long_captions import cut_captions
from raymia.models.denoisers.one_by_one import asked_one_by_one
from raymia.models.denoisers.put_on import idle_adapters
from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.image_source import ImageCheckpoint, resolve_image_model
from raymia.perturbations.kinds import DEFAULT_STRENGTHS, check_perturbation
from raymia.records.base import Others, SetAside
from raymia.records.images import read_image_records, read_other_images, shape_of_first
from raymia.spec import (
    AuditSpec,
    EndpointTarget,
    ImageNeighbors,
    ImageRecordsSpec,
    ModelReference,
    SamplesTarget,
    SelfGeneratedReference,
    ShadowReference,
    TargetSetSpec,
)
from raymia.spec.images import Shape
from raymia.util.errors import InputError
from raymia.util.once import Once
from raymia.util.optional import require


def resolve_images(
    spec: AuditSpec,
    places: Sequence[str],
    given: ImageRecordsSpec,
    attacks: list[NamedAttack],
    problems: Problems,
) -> Inputs:
    """Read and check everything of an audit of images.

    See :func:`raymia.modalities.resolve.resolve_inputs`.

    The images are cut to the size that the models take, so the models are looked at first.
    """
    attempt = problems.attempt
    attempt(require, "PIL", "images")
    if isinstance(spec.neighbors, ImageNeighbors):
        attempt(require, "kornia", "neighbors of images", "neighbors")
    targets: dict[str, ImageCheckpoint] = {}
    once = Once()
    for number, target in enumerate(spec.targets):
        assert not isinstance(target, EndpointTarget | TargetSetSpec), "refused, or expanded"
        if isinstance(target, SamplesTarget):
            continue
        where, on_gpu = f"{places[number]}.model", spec.resources.target.gpus > 0
        found = attempt(resolve_image_model, target, where, on_gpu=on_gpu, once=once)
        if found is not None:
            targets[target.name] = found
    references: dict[str, ImageCheckpoint] = {}
    for name, reference in spec.references.items():
        if isinstance(reference, ModelReference | ShadowReference):
            where, on_gpu = f"references.{name}.model", spec.resources.reference.gpus > 0
            found = attempt(resolve_image_model, reference, where, on_gpu=on_gpu, once=once)
            if found is not None:
                references[name] = found
    said = said_of(spec, places)
    has_captions = given.caption_column is not None or given.folder_prompts
    for name, one in said.items():
        if name in targets:
            one = said[name] = attempt(with_headers, one, targets[name]) or one
            asked = attempt(read_as_trained, targets[name], one, name, has_captions=has_captions)
            targets[name] = asked or targets[name]
    shadows = {n for n, one in spec.references.items() if isinstance(one, ShadowReference)}
    read_references = attempt(references_as_trained, references, targets, shadows)
    references, otherwise = read_references or (references, {})
    prepared = attempt(preparation_of, given, said)
    shape = attempt(one_shape, {**targets, **references})
    if shape is None and not problems.found:
        shape = attempt(shape_of_first, given)
    if shape is None:
        problems.refuse()
        raise ValueError("an audit file has at least one target")
    read = partial(read_other_images, spec=given, shape=shape, prepared=prepared)
    records = attempt(read_image_records, given, shape, prepared=prepared)
    taken: Mapping[str, str] = {}
    if records is not None and given.population:
        taken = taken_by(records.table["record_id"])
    aside: list[SetAside] = [] if records is None else list(records.set_aside)
    shadow_members: dict[str, frozenset[str]] = {}
    for name, reference in spec.references.items():
        if isinstance(reference, ShadowReference):
            where = f"references.{name}.members"
            # A repetition takes nothing from what the shadow was trained on.
            others = Others("member of a shadow", where, aside=aside, each=[])
            members = attempt(read, reference.members, others=others)
            shadow_members[name] = frozenset(members or ())
    population: dict[str, Any] = {}
    prompts: dict[str, tuple[str, ...]] = {}
    if given.population:
        others = Others("image of the population", "records.population", taken, aside)
        population = attempt(read, given.population, others=others) or {}
    captions = [payload["caption"] for payload in population.values()]
    if records is not None:
        captions += pc.struct_field(records.table["payload"], "caption").to_pylist()
    attempt(check_classes, given, {**targets, **references}, captions)
    for name, reference in spec.references.items():
        if isinstance(reference, SelfGeneratedReference):
            known = {record_id_of(caption): "a record's" for caption in captions if caption}
            prompts[name] = attempt(read_prompts, reference, name, known, aside) or ()
    attempt(check_generation, spec, targets, references)
    generated: dict[str, Generated] = {}
    for place, target in zip(places, spec.targets, strict=True):
        if isinstance(target, SamplesTarget):
            written = attempt(read_samples, target, place, read, aside)
            if written is not None:
                generated[target.name] = written
                targets[target.name] = written.checkpoint
    if isinstance(spec.neighbors, ImageNeighbors):
        for kind in spec.neighbors.kinds:
            strengths = spec.neighbors.strengths or DEFAULT_STRENGTHS[kind]
            attempt(check_perturbation, kind, strengths, shape[0], "neighbors")
    for where, model in {**targets, **references}.items():
        attempt(check_timesteps, spec, where, model)
        if isinstance(model, DenoiserCheckpoint):
            attempt(check_marks, model, where)
    prior = None
    if records is not None:
        prior = attempt(prior_lines, said, records, read, aside)
    left_out = (
        attempt(impossible_attacks, spec, attacks, targets, references, len(population)) or {}
    )
    problems.refuse()
    assert records is not None
    models = {**targets, **references}
    denoisers = {n: m for n, m in models.items() if isinstance(m, DenoiserCheckpoint)}
    trained = {name: one for name, one in said.items() if name in targets}
    assumed = [line for n, one in trained.items() for line in assumed_of(one, n, targets[n], given)]
    samples = {name: own.pixels for name, own in generated.items()}
    noted = [
        *(line for one in trained.values() for line in facts_of(one, given)),
        *(line for n, one in trained.items() for line in header_lines(one, n, targets[n])),
        *(prior or ()),
        *(line for name, own in generated.items() for line in own.remarks(name)),
        *records.remark_lines(),
        *idle_adapters(denoisers, once),
        *cut_captions(denoisers, captions),
        *asked_one_by_one(denoisers),
    ]
    return Inputs(
        spec,
        Images(shape, samples, prompts, otherwise),
        replace(records, set_aside=aside),
        attacks,
        {target.name: targets[target.name] for target in spec.targets},
        references,
        population=population,
        shadow_members=shadow_members,
        left_out=left_out,
        means=means_of(spec, places, attacks, len(population), samples),
        assumed=tuple(dict.fromkeys(assumed)),
        noted=tuple(dict.fromkeys(noted)),
    )


def check_classes(
    given: ImageRecordsSpec, models: dict[str, ImageCheckpoint], captions: Sequence[str]
) -> None:
    """Refuse models of classes where records have none, or none that they know, and models of
    captions where records have classes."""
    denoisers = {name: m for name, m in models.items() if isinstance(m, DenoiserCheckpoint)}
    known = {name: model.classes for name, model in denoisers.items() if model.classes}
    if given.class_column is None:
        raise_all(
            f"records.class_column: {name} takes one of {count} classes with each image; name "
            "the column of their numbers"
            for name, count in known.items()
        )
        return
    raise_all(
        f"records.class_column: {name} is conditioned on text, and records with a class have no "
        "caption; audit it in a file of its own"
        for name, model in denoisers.items()
        if model.is_captioned
    )
    highest = max(map(int, captions), default=0)
    raise_all(
        f"records.class_column: the highest class of a record is {highest}, and {name} knows "
        f"{count}, from 0 to {count - 1}"
        for name, count in known.items()
        if highest >= count
    )


def one_shape(models: dict[str, ImageCheckpoint]) -> Shape | None:
    """The shape of the images that all models take; None without a model.

    Raises
    ------
    InputError
        If they take different ones.
    """
    shapes = {name: model.shape for name, model in models.items()}
    if len({*shapes.values()}) > 1:
        listed = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in shapes.items())
        raise InputError(
            "targets and references should take images of one shape (channels, height, width), but "
            f"got: {listed}; audit the others in a file of their own"
        )
    return next(iter(shapes.values()), None)


def check_timesteps(spec: AuditSpec, name: str, model: ImageCheckpoint) -> None:
    """Refuse timesteps outside of a model's noise schedule."""
    if not isinstance(model, DenoiserCheckpoint):
        return
    probes, last = spec.probes, model.train_timesteps - 1
    asked = {
        "denoising.timesteps": probes.denoising.timesteps,
        "proximal.timesteps": probes.proximal.timesteps,
        "clean.timesteps": probes.clean.timesteps,
        "captions.timesteps": probes.captions.timesteps,
        "inversion.timestep (and one step more)": [
            probes.inversion.timestep + probes.inversion.step
        ],
    }
    if probes.averaged is not None:
        asked["averaged.timesteps"] = probes.averaged.timesteps
    raise_all(
        f"probes.{key}: {max(timesteps)} is outside of the schedule of {name}, which ends at {last}"
        for key, timesteps in asked.items()
        if max(timesteps) > last
    )


def raise_all(problems: Iterable[str]) -> None:
    """Raise an error with all of some problems, if there are any."""
    found = list(problems)
    if found:
        raise InputError(found)
