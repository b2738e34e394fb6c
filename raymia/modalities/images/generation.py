"""What targets of images are told when they generate for a reference, and what they are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from raymia.models.denoisers.resolver import DenoiserCheckpoint
from raymia.models.image_source import ImageCheckpoint, ImageModel
from raymia.prepare.image_families import find_family
from raymia.records.base import Given, Others, SetAside, gather_others
from raymia.records.tables import read_rows
from raymia.spec import AuditSpec, SelfGeneratedReference
from raymia.util.errors import InputError
from raymia.util.hashing import digest


def has_adapter(target: ImageCheckpoint) -> bool:
    """Whether a target is a base with an adapter."""
    return isinstance(target, DenoiserCheckpoint) and bool(target.adapters)


def choose_captions(
    target: ImageModel, spec: SelfGeneratedReference, prompts: Sequence[str]
) -> tuple[str, ...]:
    """The captions that a target generates images of, in turn: those that are given, else the one
    that it is asked with; or of a model of classes each of them. None of a model that is told
    nothing."""
    if not isinstance(target, DenoiserCheckpoint):
        return ()
    if target.classes:
        return tuple(str(number) for number in range(target.classes))
    if not target.is_captioned:
        return ()
    if prompts:
        return tuple(prompts)
    prompt = spec.instance_prompt or target.query.prompt
    return (prompt,) if prompt else ()


def read_prompts(
    spec: SelfGeneratedReference, name: str, known: Mapping[str, str], aside: list[SetAside]
) -> tuple[str, ...]:
    """The captions of others that a reference names.

    Parameters
    ----------
    name : of the reference.
    known : what captions are already, by :func:`record_id_of`.
    aside : what cannot be used is added to it.

    Raises
    ------
    InputError
        For files that cannot be read, or without a caption that is none of a record.
    """
    if not spec.prompts:
        return ()

    def read(path: str) -> Iterator[Given]:
        for row in read_rows(path, {"prompt_column": spec.prompt_column}):
            caption = row.values.get("prompt_column")
            if (reason := row.why_not("prompt_column")) is not None:
                yield Given(row.where, reason=reason)
            elif not isinstance(caption, str) or not caption.strip():
                yield Given(row.where, reason="no text")
            else:
                yield Given(row.where, record_id_of(caption.strip()), caption.strip())

    others = Others("prompt", f"references.{name}.prompts", known, aside)
    return tuple(gather_others(spec.prompts, read, "a caption", others).values())


def record_id_of(caption: str) -> str:
    """What tells captions apart."""
    return digest(["caption", caption.strip()])


def check_generation(
    spec: AuditSpec,
    targets: Mapping[str, ImageCheckpoint],
    references: Mapping[str, ImageCheckpoint],
) -> None:
    """Refuse bases that a reference is not trained from, captions and guidance that targets do not
    take, or lack, and settings that mean nothing to them or cannot be trained by.

    Raises
    ------
    InputError
        Naming the keys.
    """
    found = [
        f"references.{name}.{problem}"
        for name, reference in spec.references.items()
        if isinstance(reference, SelfGeneratedReference)
        for problem in _problems(reference, targets, references)
    ]
    if found:
        raise InputError(found)


def _problems(
    spec: SelfGeneratedReference,
    targets: Mapping[str, ImageCheckpoint],
    references: Mapping[str, ImageCheckpoint],
) -> Iterator[str]:
    base = None if spec.base is None else references.get(spec.base)
    for name, target in targets.items():
        if not isinstance(target, ImageModel):
            continue
        family = find_family(target)
        if has_adapter(target):
            if isinstance(base, ImageModel) and (base.path != target.path or has_adapter(base)):
                yield (
                    f"base: a self-generated reference of {name!r} is a fresh adapter on its own "
                    f"base, {target.path}; leave out `base`, or name a reference that is that"
                )
        elif spec.base is not None and family is not None and not family.trains_further:
            yield (
                f"base: a self-generated reference of {name!r} is a fresh {target.family} of its "
                "architecture; leave out `base`"
            )
    yield from _without_effect(spec, targets)
    denoisers = {n: t for n, t in targets.items() if isinstance(t, DenoiserCheckpoint)}
    if denoisers:
        yield from (f"training.warmup: {problem}" for problem in spec.training.warm_up_problems)
    captioned = [name for name, target in denoisers.items() if target.is_captioned]
    given = next((key for key in ("prompts", "instance_prompt") if getattr(spec, key)), None)
    if given is not None and denoisers and not captioned:
        yield f"{given}: no target is conditioned on captions; leave it out"
    without_prompt = [name for name in captioned if not denoisers[name].query.prompt]
    adapted = [name for name in without_prompt if has_adapter(denoisers[name])]
    if spec.instance_prompt is None and not spec.prompts and adapted:
        yield (
            f"prompts: {adapted[0]!r} is an adapter on a model of captions, and there is none to "
            "generate images of; name files of captions of others as `prompts`, or the "
            "`instance_prompt` of its training"
        )
    if spec.guidance != 1 and denoisers:
        if unconditioned := [name for name in denoisers if name not in captioned]:
            yield (
                f"guidance: {unconditioned[0]!r} is not conditioned on captions, and guidance is "
                "away from the empty one; leave it out"
            )
        elif given is None and without_prompt:
            yield "guidance: images of the empty caption are guided nowhere; give `prompts`"


def _without_effect(
    spec: SelfGeneratedReference, targets: Mapping[str, ImageCheckpoint]
) -> Iterator[str]:
    """Settings that change nothing for any target, and steps too small for one."""
    families = {
        name: family
        for name, target in targets.items()
        if isinstance(target, ImageModel) and (family := find_family(target)) is not None
    }
    if not families:
        return
    name = next(iter(families))
    for key in sorted(frozenset.intersection(*(one.unused for one in families.values()))):
        if key in _given(spec):
            which = f"{name!r}, which is of the family {targets[name].family}"
            yield f"{key}: it changes nothing for a reference of {which}; leave it out"
    for name, family in families.items():
        if spec.training.batch_size < family.smallest_batch:
            yield (
                f"training.batch_size: a reference of {name!r} is trained on "
                f"{family.smallest_batch} images or more at a time, but got "
                f"{spec.training.batch_size}; make it larger"
            )


def _given(spec: SelfGeneratedReference) -> frozenset[str]:
    """Keys of a reference and of its training that are other than by default."""
    own = spec.model_dump(exclude_defaults=True)
    return frozenset([*own, *(f"training.{key}" for key in own.get("training", ()))])
