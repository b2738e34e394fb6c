"""What an audit of images gives attacks to work with, before a model is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

from raymia.attacks import NamedAttack
from raymia.attacks.means import Choice, Count, Means
from raymia.questions.base import registered
from raymia.spec import AuditSpec, AveragedSpec, ImageNeighbors, SelfGeneratedReference


def means_of(
    spec: AuditSpec,
    places: Sequence[str],
    attacks: Sequence[NamedAttack],
    population: int,
    samples: Mapping[str, Sized],
) -> dict[str, Means]:
    """What attacks have to work with on each target.

    Parameters
    ----------
    places : of the targets, in the audit file.
    population : usable images of it.
    samples : usable ones, by the targets of which no more is given.
    """
    choices, counts = _choices(spec), {}
    if spec.records.population:
        counts["population"] = Count("records.population", population)
    # Samples are those of the first reference that the plan has made of a target.
    order = [*(named.reference for named in attacks), *spec.references]
    for name in order:
        reference = spec.references.get(name or "")
        if isinstance(reference, SelfGeneratedReference):
            counts["samples"] = Count(f"references.{name}.images", reference.images)
            break
    found = {}
    for place, target in zip(places, spec.targets, strict=True):
        own = dict(counts)
        if target.name in samples:
            own["samples"] = Count(f"{place}.samples", len(samples[target.name]))
        found[target.name] = Means(choices, own)
    return found


def _choices(spec: AuditSpec) -> dict[str, Choice]:
    """The perturbations of neighbors, and the timesteps of each question that has some."""
    found = {}
    if isinstance(spec.neighbors, ImageNeighbors):
        key = "among" if spec.neighbors.kind == "auto" else "kind"
        found["perturbations"] = Choice(f"neighbors.{key}", spec.neighbors.kinds)
    sections = {**dict(spec.probes), "averaged": spec.probes.averaged or AveragedSpec()}
    for question in registered(spec.records.kind):
        timesteps = getattr(sections.get(question.section or ""), "timesteps", None)
        if timesteps is not None:
            key = f"probes.{question.section}.timesteps"
            found[question.name] = Choice(key, timesteps)
    return found
