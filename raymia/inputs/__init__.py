"""What an audit works on, resolved and checked before any model is loaded."""

from __future__ import annotations

from dataclasses import replace

from raymia.errors import InputError
from raymia.files import check_can_write
from raymia.inputs.attack_list import name_attacks
from raymia.inputs.base import AnyCheckpoint, Inputs, Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.spec import AuditSpec, ImageRecordsSpec
from raymia.spec.conditions import check_conditions, parse_conditions

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
    else:
        from raymia.inputs.texts import resolve_texts

        inputs = resolve_texts(spec, places, spec.records, attacks, problems)
    _check_gate(inputs)
    return replace(inputs, written=written)


def _check_gate(inputs: Inputs) -> None:
    """Refuse conditions that no outcome of this audit could decide."""
    spec = inputs.spec
    if spec.fail_if and not (inputs.records.count(True) and inputs.records.count(False)):
        raise InputError(
            "fail_if: conditions are on what is measured, which takes members and non-members; "
            "give both under `records`"
        )
    labels = {name: [a.label for a in inputs.attacks_on(name)] for name in inputs.targets}
    check_conditions(parse_conditions(spec.fail_if, "fail_if"), labels, spec.metrics.fprs)
