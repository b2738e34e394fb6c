"""What an audit works on, resolved and checked before any model is loaded."""

from __future__ import annotations

from dataclasses import replace

from raymia.files import check_can_write
from raymia.inputs.attack_list import name_attacks
from raymia.inputs.base import AnyCheckpoint, Inputs, Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.spec import AuditSpec, ImageRecordsSpec

__all__ = ["AnyCheckpoint", "Inputs", "name_attacks", "resolve_inputs"]


def resolve_inputs(spec: AuditSpec) -> Inputs:
    """Read and check everything, and report all problems together.

    Raises
    ------
    InputError
        With every problem found.
    """
    problems = Problems()
    written = spec
    spec, places = expand_targets(spec, problems)
    if not spec.targets:
        problems.refuse()
    for key in ("output", "store"):
        problems.attempt(check_can_write, getattr(spec, key), key)
    attacks = problems.attempt(name_attacks, spec) or []
    if isinstance(spec.records, ImageRecordsSpec):
        from raymia.inputs.images import resolve_images

        inputs = resolve_images(spec, places, spec.records, attacks, problems)
        return replace(inputs, written=written)
    from raymia.inputs.texts import resolve_texts

    return replace(resolve_texts(spec, places, spec.records, attacks, problems), written=written)
