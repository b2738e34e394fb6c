"""What an audit works on, resolved and checked before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import pyarrow.compute as pc

from raymia.inputs.attack_list import name_attacks
from raymia.inputs.base import Inputs, Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.inputs.modality import modality_of
from raymia.inputs.served import leave_out_unserved
from raymia.inputs.shadow_folders import expand_shadows
from raymia.results.deletions import retrained
from raymia.scoring.judge import Judge
from raymia.spec import AuditSpec, TargetSpec
from raymia.spec.conditions import Condition, check_conditions, parse_conditions
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
    conditions = parse_conditions(spec.fail_if, "fail_if")
    check_conditions(conditions, labels, spec.metrics.fprs)
    problems = [
        f"fail_if: {condition.text!r}: {why}"
        for condition in conditions
        for why in _never_decided(condition, inputs, labels)
    ]
    if problems:
        raise InputError(problems)


def _never_decided(
    condition: Condition, inputs: Inputs, labels: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Why a condition could not be decided on a target, and would close the gate."""
    targets = [name for name in labels if fnmatchcase(name, condition.targets)]
    if condition.is_of_attacks:
        without = [
            name for name in targets
            if not any(fnmatchcase(label, condition.attacks) for label in labels[name])
        ]  # fmt: skip
        if without:
            yield (
                f"{condition.attacks!r} is not run on {listed(without, 3)}; name the targets that "
                f"it is run on, as in `TARGET:{condition.attacks}.auc`"
            )
    if condition.by_group:
        groups = Judge.of(inputs).groups
        if groups is None:
            yield (
                "no record has a group; name the column of groups as `records.group_column`, or "
                "leave out `by group`"
            )
        elif not groups.labels.can_measure:
            yield (
                "groups are measured where some have members alone and some have non-members "
                "alone, and here there are not both; leave out `by group`"
            )
    if condition.metric == "extraction":
        without = [name for name in targets if not inputs.modality.extracts(inputs, name)]
        if without:
            yield (
                "extraction is counted in what a target writes for the attack `samia`, on texts, "
                f"which is not run on {listed(without, 3)}; run it, name the targets that it is "
                "run on, as in `TARGET:extraction`, or leave the condition out"
            )
        elif (groups := Judge.of(inputs).groups) is not None and groups.hold_all:
            yield (
                "whole groups were split, and extraction counts records, which are then not "
                "independent; leave the condition out"
            )


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
