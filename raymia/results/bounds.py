"""Which lower bounds of epsilon are shown of a checkpoint, and which of them a gate compares."""

from __future__ import annotations

from dataclasses import dataclass

from raymia.metrics.summary import AttackMetrics, EpsilonBound
from raymia.results.chance import Chance
from raymia.results.gate import explained_by_guesses
from raymia.results.gate_figures import best_bound
from raymia.results.result import RunResult


@dataclass(frozen=True)
class ShownBound:
    """A lower bound of epsilon.

    Attributes
    ----------
    attack : what it is by.
    is_compared : whether a condition on epsilon compares it, if it is on every attack.
    """

    attack: str
    bound: EpsilonBound
    is_compared: bool


def shown_bounds(result: RunResult, leader: AttackMetrics) -> list[ShownBound]:
    """The bound that a gate compares, then the others of the leading attack; of what the tests
    count.

    Of all attacks' bounds a gate compares the one that is the highest on the calibration half. That
    choice is made on other records, so it does not flatter the bound.
    """
    chance, blind = Chance.of(result), explained_by_guesses(result)
    found = [
        (unit.attack, bound)
        for place, unit in chance.units.items()
        if unit.target == leader.target and place not in blind
        if (bound := best_bound(unit)) is not None and bound.chosen_by is not None
    ]
    compared = max(found, key=lambda pair: pair[1].chosen_by or 0.0, default=None)
    unit = chance.units.get((leader.target, leader.attack))
    # Without one the leader's bounds are of records, and would stand among those of other units.
    own = [] if unit is None else [(leader.attack, bound) for bound in unit.epsilon]
    shown = [] if compared is None else [compared]
    shown += [pair for pair in own if pair != compared]
    return [ShownBound(attack, bound, (attack, bound) == compared) for attack, bound in shown]
