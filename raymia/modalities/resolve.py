"""What an audit works on, resolved and checked before any model is loaded."""

from __future__ import annotations

from dataclasses import replace

import pyarrow.compute as pc

from raymia.inputs.attack_list import name_attacks
from raymia.inputs.base import Inputs, Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.inputs.modality import modality_of
from raymia.inputs.served import leave_out_unserved
from raymia.inputs.shadow_folders import expand_shadows
from raymia.results.deletions import retrained
from raymia.spec import AuditSpec, TargetSpec
from raymia.spec.conditions import check_conditions, parse_conditions
from raymia.storage.files import check_can_open, check_can_write
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.memory import hand_back_memory

UNFAIR = 1e-6
"""Counts that a fair coin gives less often were not given by one."""


def resolve_inputs(spec: AuditSpec, *, served: bool = True) -> Inputs:
    """Read and check everything, and report all problems together.

    Parameters
    ----------
    served : whether attacks that ask for more than the audit gives are looked for; a sweep, which
        tries them with other parameters, looks for itself.

    Raises
    ------
    InputError
        With every problem found.
    """
    problems = Problems()
    written = spec
    spec, places = expand_targets(expand_shadows(spec, problems), problems)
    if not spec.targets:
        problems.refuse()
    problems.attempt(check_can_write, spec.output, "output")
    problems.attempt(check_can_open, spec.store, "store")  # written to where something is missing
    modality = modality_of(spec.records.kind)
    spec = problems.attempt(modality.settled, spec) or spec
    attacks = problems.attempt(name_attacks, spec) or []
    inputs = modality.resolve(spec, places, attacks, problems)
    inputs = leave_out_unserved(inputs) if served else inputs
    _check_gate(inputs)
    _check_coins(inputs)
    _check_claims(inputs)
    _check_deletions(inputs)
    hand_back_memory()
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


def _check_claims(inputs: Inputs) -> None:
    """Refuse claims that a bound at the audit's delta could not refute."""
    delta = inputs.spec.metrics.delta
    problems = [
        f"metrics.delta: {delta:g} is less than the {target.claim.delta:g} at which the training "
        f"of {target.name!r} claims its epsilon, so that no bound could speak against it; say "
        f"`delta: {target.claim.delta:g}`"
        for target in inputs.spec.targets
        if isinstance(target, TargetSpec)
        and target.claim is not None
        and target.claim.delta > delta
    ]
    if problems:
        raise InputError(problems)


def _check_deletions(inputs: Inputs) -> None:
    """Refuse models that were trained again without the members of none."""
    names = listed([*inputs.targets])
    wrong = [
        f"targets: without_members_of of {after!r} is {before!r}, and should be the name of "
        f"another target of the audit; there are: {names}"
        for after, before in retrained(inputs.spec).items()
        if before == after or before not in inputs.targets
    ]
    if wrong:
        raise InputError(wrong)


def _check_coins(inputs: Inputs) -> None:
    """Refuse to bound epsilon from coins where the counts say that none were tossed: whoever calls
    all records members would be right about most, and a target that leaks nothing be refuted."""
    if inputs.spec.metrics.inclusion != "randomized":
        return
    from scipy import stats

    table = inputs.records.table
    counts = []
    for kind in (True, False):
        groups = table.filter(pc.equal(table["is_member"], kind))["group"]
        counts.append(pc.count_distinct(groups).as_py() + groups.null_count)
    members, tossed = counts[0], sum(counts)
    if tossed and stats.binomtest(members, tossed).pvalue < UNFAIR:
        raise InputError(
            f"metrics.inclusion: `randomized` says that a fair coin decided for each record, or "
            f"group, whether it was trained on, but {members:,} of {tossed:,} were; give all that "
            "coins were tossed for, or leave the key out"
        )
