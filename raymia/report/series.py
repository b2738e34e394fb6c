"""Checkpoints of one training, known by the numbers at the end of their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raymia.metrics.summary import AttackMetrics
from raymia.results.ranking import TargetRanking
from raymia.results.result import TargetLoss

FEWEST = 3
"""Checkpoints that make a series."""
MAX_LINES = 5
_NUMBERED = re.compile(r"(?P<name>.*?)[-_.]?(?P<number>\d+)", re.DOTALL)


@dataclass(frozen=True)
class Series:
    """Checkpoints that differ in the number at the end of their names.

    Attributes
    ----------
    name : what stands before the number, as "step" of "step-3000".
    steps : the numbers, ascending.
    targets : names of the checkpoints, [steps].
    lines : metrics of each attack that leads on some checkpoint, [steps], with None where it was
        not measured; the one that leads most often first.
    held_out, fitted : loss on non-members and on members, [steps]; None where it is not known.
    """

    name: str
    steps: list[int]
    targets: list[str]
    lines: dict[str, list[AttackMetrics | None]]
    held_out: list[float | None]
    fitted: list[float | None]

    @property
    def unit(self) -> str:
        """What the numbers count, as far as the name says so."""
        last = re.split(r"[-_./ ]", self.name)[-1].lower()
        return last if last in ("step", "epoch", "checkpoint") else "number"


def numbered(name: str) -> tuple[str, int] | None:
    """Split a name such as ``step-3000`` or ``epoch3``; None without a number at its end."""
    found = _NUMBERED.fullmatch(name)
    return None if found is None else (found["name"], int(found["number"]))


def find_series(
    rankings: Sequence[TargetRanking],
    leaders: Mapping[str, AttackMetrics | None],
    losses: Sequence[TargetLoss],
) -> list[Series]:
    """Group measured checkpoints whose names differ in a number alone.

    Parameters
    ----------
    leaders : the attack that leads on each target.
    """
    groups: dict[str, dict[int, TargetRanking]] = {}
    for ranking in rankings:
        place = numbered(ranking.target)
        if place is not None and ranking.measured:
            groups.setdefault(place[0], {}).setdefault(place[1], ranking)
    known = {loss.target: loss for loss in losses}
    return [
        _series(name, [group[step] for step in sorted(group)], sorted(group), leaders, known)
        for name, group in groups.items()
        if len(group) >= FEWEST
    ]


def _series(
    name: str,
    rankings: list[TargetRanking],
    steps: list[int],
    leaders: Mapping[str, AttackMetrics | None],
    losses: Mapping[str, TargetLoss],
) -> Series:
    targets = [ranking.target for ranking in rankings]
    leading = Counter(
        leader.attack for target in targets if (leader := leaders.get(target)) is not None
    )
    by_name = [{attack.attack: attack for attack in ranking.measured} for ranking in rankings]
    return Series(
        name=name or "checkpoints",
        steps=steps,
        targets=targets,
        lines={
            attack: [found.get(attack) for found in by_name]
            for attack, _ in leading.most_common(MAX_LINES)
        },
        held_out=[losses[t].non_members if t in losses else None for t in targets],
        fitted=[losses[t].members if t in losses else None for t in targets],
    )
