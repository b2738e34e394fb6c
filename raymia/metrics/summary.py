"""Typed results: what one attack achieved against one target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from raymia.metrics import intervals, roc

DEFAULT_FPRS = (0.1, 0.01, 0.001)
LEAST_PER_CLASS = 2
"""With a single member or non-member a resample cannot differ from the audit."""


class Result(BaseModel):
    """Base of every result: immutable, without unknown keys, without silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Estimate(Result):
    """A number measured on the audited records, with its bootstrap percentile interval."""

    value: float = Field(description="the number on the records as they are", allow_inf_nan=False)
    low: float = Field(description="lower end of the interval", allow_inf_nan=False)
    high: float = Field(description="upper end of the interval", allow_inf_nan=False)


class TprAtFpr(Result):
    """True positive rate of the best threshold whose false positive rate is within a budget."""

    max_fpr: float = Field(gt=0, lt=1, description="budget of false positives, as a rate")
    resolvable: bool = Field(description="whether one false positive is within the budget")
    estimate: Estimate | None = Field(description="none where the budget is not resolvable")
    needed_non_members: int = Field(
        ge=1, description="fewest non-members with which this budget is resolvable"
    )


class AttackMetrics(Result):
    """What an attack achieved against a target."""

    kind: Literal["measured"] = "measured"
    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    n_members: int = Field(ge=LEAST_PER_CLASS, description="members with a score")
    n_non_members: int = Field(ge=LEAST_PER_CLASS, description="non-members with a score")
    n_unscored: int = Field(ge=0, description="members and non-members without a score, left out")
    auc: Estimate = Field(description="area under the ROC curve; 0.5 is chance")
    tpr: list[TprAtFpr] = Field(description="true positive rate at each false positive budget")
    balanced_accuracy: Estimate = Field(
        description="best over thresholds, chosen on the same records and therefore optimistic"
    )
    confidence: float = Field(gt=0, lt=1, description="nominal level of every interval")
    resamples: int = Field(ge=1, description="bootstrap resamples behind every interval")


class NotMeasured(Result):
    """An attack that could not be measured against a target, and why."""

    kind: Literal["not_measured"] = "not_measured"
    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    n_members: int = Field(ge=0, description="members with a score")
    n_non_members: int = Field(ge=0, description="non-members with a score")
    n_unscored: int = Field(ge=0, description="members and non-members without a score")
    reason: str = Field(description="why there are no metrics, for a person to read")


Metrics = Annotated[AttackMetrics | NotMeasured, Field(discriminator="kind")]


def measure(
    scores: NDArray[Any],
    is_member: NDArray[Any],
    *,
    target: str,
    attack: str,
    fprs: Sequence[float] = DEFAULT_FPRS,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> AttackMetrics | NotMeasured:
    """Measure one attack against one target on records of known membership.

    Parameters
    ----------
    scores : float array of shape (n_records,)
        Higher means more likely a member. NaN means that the attack has no score for the record;
        such records are left out and counted.
    is_member : boolean array of shape (n_records,)
        Records of unknown membership must have been left out.
    target, attack : str
        Names for the result.
    fprs : sequence of float
        Budgets of false positives, rates in (0, 1).
    confidence : float
        Nominal level of the intervals, in (0, 1).
    resamples : int
        Bootstrap resamples.
    seed : int
        Seed of the bootstrap. The same seed gives the same resamples to every attack.

    Returns
    -------
    AttackMetrics or NotMeasured
        The latter when fewer than two members or non-members have a score, or when a score is
        infinite: such a score is a fault of the attack, and no rank can be trusted beside it.

    Raises
    ------
    ValueError
        If an argument is out of range or the arrays differ in shape.
    """
    for max_fpr in fprs:
        if not 0.0 < max_fpr < 1.0:
            raise ValueError(f"Argument `fprs` should hold rates in (0, 1), but got {max_fpr}.")
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(is_member)
    if values.ndim != 1 or labels.shape != values.shape or labels.dtype != np.bool_:
        raise ValueError(
            "Argument `is_member` should be a boolean array as long as `scores`, but got "
            f"{labels.dtype} of shape {labels.shape} for scores of shape {values.shape}."
        )
    scored = ~np.isnan(values)
    n_unscored = int(np.count_nonzero(~scored))
    values, labels = values[scored], labels[scored]
    n_members = int(np.count_nonzero(labels))
    n_non_members = labels.size - n_members

    reason = _why_not(values, n_members, n_non_members)
    if reason is not None:
        return NotMeasured(
            target=target,
            attack=attack,
            n_members=n_members,
            n_non_members=n_non_members,
            n_unscored=n_unscored,
            reason=reason,
        )

    curve = roc.roc_curve(values, labels)
    replicates = intervals.bootstrap(values, labels, fprs, resamples=resamples, seed=seed)

    def estimate(value: float, of: roc.FloatArray) -> Estimate:
        low, high = intervals.percentile_interval(of, confidence)
        return Estimate(value=value, low=low, high=high)

    tpr = []
    for column, max_fpr in enumerate(fprs):
        resolvable = roc.allowed_false_positives(max_fpr, n_non_members) >= 1
        tpr.append(
            TprAtFpr(
                max_fpr=max_fpr,
                resolvable=resolvable,
                estimate=estimate(roc.tpr_at_fpr(curve, max_fpr), replicates.tpr[:, column])
                if resolvable
                else None,
                needed_non_members=roc.needed_non_members(max_fpr),
            )
        )
    return AttackMetrics(
        target=target,
        attack=attack,
        n_members=n_members,
        n_non_members=n_non_members,
        n_unscored=n_unscored,
        auc=estimate(roc.auc(curve), replicates.auc),
        tpr=tpr,
        balanced_accuracy=estimate(roc.balanced_accuracy(curve), replicates.balanced_accuracy),
        confidence=confidence,
        resamples=resamples,
    )


def _why_not(scores: roc.FloatArray, n_members: int, n_non_members: int) -> str | None:
    infinite = int(np.count_nonzero(np.isinf(scores)))
    if infinite:
        return f"{infinite} of {scores.size} scores are infinite"
    for count, kind in ((n_members, "members"), (n_non_members, "non-members")):
        if count < LEAST_PER_CLASS:
            return f"at least {LEAST_PER_CLASS} {kind} must have a score; there are {count}"
    return None
