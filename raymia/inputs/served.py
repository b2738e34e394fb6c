"""Attacks that ask for more than the audit file gives, found before a model is asked."""

from __future__ import annotations

from dataclasses import replace

from raymia.attacks import Attack
from raymia.attacks.means import Means
from raymia.inputs.base import Inputs
from raymia.util.errors import InputError
from raymia.util.listing import FEW, listed

NOTHING_KNOWN = Means()


def unserved(inputs: Inputs, attack: Attack, target: str) -> str | None:
    """What an attack asks for, with its parameters, that a target's audit does not give; None where
    it gives everything."""
    return "; ".join(attack.unserved(inputs.means.get(target, NOTHING_KNOWN))) or None


def leave_out_unserved(inputs: Inputs) -> Inputs:
    """The same without the attacks of the default list that a target's audit cannot serve.

    Raises
    ------
    InputError
        For such attacks that the audit file names.
    """
    reasons = {
        (target, named.label): why
        for target in inputs.targets
        for named in inputs.attacks_on(target)
        if (why := unserved(inputs, named.attack, target)) is not None
    }
    if reasons and inputs.spec.attacks is not None:
        places = {named.label: named.where for named in inputs.attacks}
        alike: dict[tuple[str, str], list[str]] = {}
        for (target, label), why in reasons.items():
            alike.setdefault((label, why), []).append(repr(target))
        raise InputError(
            f"{places[label]}: {label!r} cannot be run on {listed(targets, FEW)}: {why}"
            for (label, why), targets in alike.items()
        )
    return replace(inputs, left_out={**inputs.left_out, **reasons})
