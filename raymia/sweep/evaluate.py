"""Trying a setting: the attack's scores on stored evidence, measured on each half of the records.

Settings are compared on the calibration half; the evaluation half judges the one that is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from raymia.attacks import Attack, NamedAttack, build
from raymia.attacks.base import Scores
from raymia.inputs.base import Inputs
from raymia.metrics import roc
from raymia.metrics.learning import MIN_PER_CLASS, fold_of
from raymia.metrics.summary import Result
from raymia.scoring.attack_scores import AttackFailedError, attack_scores
from raymia.scoring.evidence import units
from raymia.spec import ObjectiveSpec, Value
from raymia.util.errors import InputError
from raymia.util.hashing import digest

Rows = npt.NDArray[np.bool_]


class Halves(Result):
    """How many records each half has."""

    calibration_members: int = Field(ge=0, description="that settings are compared by")
    calibration_non_members: int = Field(ge=0, description="that settings are compared by")
    evaluation_members: int = Field(ge=0, description="that judge the best")
    evaluation_non_members: int = Field(ge=0, description="that judge the best")


@dataclass(frozen=True)
class Split:
    """The records, split: bool [records] each. Candidates are in neither half."""

    calibration: Rows
    evaluation: Rows
    is_member: Rows

    def counts(self, half: str) -> tuple[int, int]:
        """Members and non-members of a half."""
        rows: Rows = getattr(self, half)
        return int((rows & self.is_member).sum()), int((rows & ~self.is_member).sum())

    @property
    def sizes(self) -> Halves:
        chosen, judged = self.counts("calibration"), self.counts("evaluation")
        return Halves(
            calibration_members=chosen[0],
            calibration_non_members=chosen[1],
            evaluation_members=judged[0],
            evaluation_non_members=judged[1],
        )

    @property
    def digest(self) -> str:
        return digest([rows.tobytes().hex() for rows in vars(self).values()])


def halve(inputs: Inputs, seed: int, objective: ObjectiveSpec) -> Split:
    """Split the records of known membership; groups stay together.

    Raises
    ------
    InputError
        If a half has fewer than ten members or non-members, or too few non-members for the
        objective's false-positive rate.
    """
    labels = inputs.records.table["is_member"].to_pylist()
    known = np.array([label is not None for label in labels], bool)
    first = fold_of(units(inputs.records), 2, f"half of a sweep {seed}") == 0
    is_member = np.array([label is True for label in labels], bool)
    halves = Split(known & first, known & ~first, is_member)
    problems = []
    for half in ("calibration", "evaluation"):
        members, others = halves.counts(half)
        needed = MIN_PER_CLASS
        if objective.metric == "tpr":
            needed = max(needed, roc.needed_non_members(objective.fpr))
        if members < MIN_PER_CLASS or others < needed:
            problems.append(
                f"sweep: the {half} half has {members:,} members and {others:,} non-members; "
                f"it takes at least {MIN_PER_CLASS} and {needed:,}"
            )
    if problems:
        raise InputError([*problems, "sweep: give more records, or another objective"])
    return halves


@dataclass(frozen=True)
class Place:
    """The evidence that an attack is tried on.

    Attributes
    ----------
    target, reference : names; None for an attack that runs alone.
    query : number of the setting of the queries.
    swept : the attack as the audit file names it.
    attack : the statistic.
    evidence : hash of what the attack reads.
    neighbors : name of the neighbors that it runs with; "" where they have none.
    """

    target: str
    query: int
    swept: str
    attack: str
    reference: str | None
    evidence: str
    neighbors: str = ""

    @property
    def label(self) -> str:
        reference = "" if self.reference is None else f"@{self.reference}"
        neighbors = f"+{self.neighbors}" if self.neighbors else ""
        return f"{self.attack}{reference}{neighbors}"


@dataclass(frozen=True)
class Setting:
    """An attack's parameters at a place."""

    place: Place
    parameters: Mapping[str, Value]

    @property
    def key(self) -> str:
        """Hash of all that tells this setting's result from another's in one record."""
        return digest([self.place.evidence, self.place.attack, dict(self.parameters)])

    def named(self, records: str) -> NamedAttack:
        """The attack with these parameters."""
        attack = build(self.place.attack, dict(self.parameters), self.place.swept, records)
        place = self.place
        return NamedAttack(place.label, attack, place.reference, place.neighbors)


class Points(Result):
    """What a setting achieves on one half of the records."""

    n_members: int = Field(ge=0, description="members with a score")
    n_non_members: int = Field(ge=0, description="non-members with a score")
    n_unscored: int = Field(ge=0, description="records without a score, left out")
    auc: float = Field(description="area under the ROC curve")
    tpr: list[float | None] = Field(description="at each rate; none where it is not resolvable")


class Evaluated(Result):
    """A setting that was tried."""

    key: str = Field(description="of the setting")
    attack: str = Field(description="the statistic")
    evidence: str = Field(description="hash of what the attack read")
    parameters: dict[str, Value] = Field(description="of the attack")
    calibration: Points | None = Field(description="none where there is a problem")
    evaluation: Points | None = Field(description="none where there is a problem")
    problem: str | None = Field(default=None, description="why nothing could be measured")

    def objective(self, rates: Sequence[float], objective: ObjectiveSpec) -> float | None:
        """What the setting is chosen by: the objective on the calibration half."""
        return objective_of(self.calibration, rates, objective)


def objective_of(
    points: Points | None, rates: Sequence[float], objective: ObjectiveSpec
) -> float | None:
    """The objective's value; None where it cannot be had."""
    if points is None:
        return None
    if objective.metric == "auc":
        return points.auc
    return points.tpr[list(rates).index(objective.fpr)]


def evaluate(
    setting: Setting, attack: Attack, evidence: Any, halves: Split, rates: Sequence[float]
) -> Evaluated:
    """Score the records and measure both halves.

    Parameters
    ----------
    evidence : what the attack may look at.
    rates : false-positive rates of the TPR.
    """
    found: dict[str, Any] = {"calibration": None, "evaluation": None}
    try:
        of_half = scores_by_half(setting.place, attack, evidence, halves)
        for half, scores in of_half.items():
            found[half] = _points(scores, halves, half, rates)
    except (ValueError, AttackFailedError) as error:
        reason = error.__cause__ or error
        if not isinstance(reason, ValueError):
            raise
        found = {"calibration": None, "evaluation": None, "problem": str(reason)}
    return Evaluated(
        key=setting.key,
        attack=setting.place.attack,
        evidence=setting.place.evidence,
        parameters=dict(setting.parameters),
        **found,
    )


def scores_by_half(place: Place, attack: Attack, evidence: Any, halves: Split) -> dict[str, Scores]:
    """Scores of all records, for each half to be read from, [records].

    An attack that learns from labels is not told those of the evaluation half for the scores that
    settings are compared by: the choice would have seen what judges it.
    """
    labels = getattr(evidence, "labels", None)

    def scores(given: Any) -> Scores:
        count = len(halves.is_member)
        return attack_scores(attack, given, count, label=place.label, target=place.target)

    whole = scores(evidence)
    if labels is None:
        return {"calibration": whole, "evaluation": whole}
    hidden = [
        None if judged else label
        for label, judged in zip(labels.is_member, halves.evaluation, strict=True)
    ]
    half = replace(evidence, labels=replace(labels, is_member=hidden))
    return {"calibration": scores(half), "evaluation": whole}


def _points(scores: Scores, halves: Split, half: str, rates: Sequence[float]) -> Points:
    rows: Rows = getattr(halves, half)
    scored = rows & ~np.isnan(scores)
    values, is_member = scores[scored], halves.is_member[scored]
    members = int(is_member.sum())
    others = len(values) - members
    if min(members, others) < MIN_PER_CLASS:
        raise ValueError(
            f"{members:,} members and {others:,} non-members of the {half} half have a score; "
            f"it takes {MIN_PER_CLASS} of each"
        )
    curve = roc.roc_curve(values, is_member)
    return Points(
        n_members=members,
        n_non_members=others,
        n_unscored=int(rows.sum() - scored.sum()),
        auc=roc.auc(curve),
        tpr=[
            roc.tpr_at_fpr(curve, rate) if roc.allowed_false_positives(rate, others) else None
            for rate in rates
        ],
    )
