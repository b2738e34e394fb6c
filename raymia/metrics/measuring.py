"""From the scores of one attack against one target to its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raymia.metrics import roc
from raymia.metrics.delong import auc_spread_of
from raymia.metrics.epsilon import (
    epsilon_held_out,
    epsilon_one_run,
    epsilon_one_run_gaussian,
    guess,
)
from raymia.metrics.held_out import Halves, accuracy_held_out, auc_held_out, rates_held_out
from raymia.metrics.intervals import auc_limits
from raymia.metrics.limits import LADDER, limited, tpr_limits
from raymia.metrics.summary import (
    MIN_PER_CLASS,
    TOO_FEW,
    AttackMetrics,
    LimitedEstimate,
    NotMeasured,
    TprAtFpr,
)
from raymia.util.hashing import string_hashes

DEFAULT_FPRS = (0.1, 0.01, 0.001)
DEFAULT_PRIORS = (0.5, 0.1, 0.01)
DEFAULT_DELTA = 1e-5


def calibration_half(units: Sequence[str] | pa.ChunkedArray) -> roc.BoolArray:
    """Which records thresholds are chosen on: about half, a function of each record's unit alone.

    Parameters
    ----------
    units : what must not be split, one for each record: its group, or its id.
    """
    if not isinstance(units, pa.ChunkedArray):
        units = pa.chunked_array([pa.array(units, pa.string())])
    return half_of(string_hashes(units))


def half_of(hashes: NDArray[np.uint64]) -> roc.BoolArray:
    """`calibration_half` of units of which the hashes are known, see `string_hashes`."""
    return hashes < np.uint64(2**63)


def measure(
    scores: NDArray[Any],
    is_member: NDArray[Any],
    *,
    target: str,
    attack: str,
    calibration: roc.BoolArray | None = None,
    fprs: Sequence[float] = DEFAULT_FPRS,
    priors: Sequence[float] = DEFAULT_PRIORS,
    delta: float = DEFAULT_DELTA,
    randomized: bool = False,
    fitted: bool = False,
    confidence: float = 0.95,
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
    calibration : boolean array of shape (n_records,)
        Records that thresholds are chosen on, from `calibration_half`; they are judged on the
        others. Without it every record is a unit, told by its position.
    fprs : sequence of float
        Budgets of false positives, rates in (0, 1).
    priors : sequence of float
        Shares of members that the positive predictive value is given for, in (0, 1).
    delta : float
        Of the lower bounds of epsilon, in [0, 1).
    randomized : bool
        Whether a fair coin of its own decided for each record whether it was trained on. Only then
        is epsilon bounded from this one run as well.
    fitted : bool
        Whether the attack was fitted on the labels of these records, cross-fitted. Then its AUC has
        wider intervals, see :data:`raymia.metrics.intervals.FITTED_SHARE`, and epsilon is not
        bounded from one run: a guess on one record would use the coins of others that are guessed.
    confidence : float
        Nominal level of the intervals, in (0, 1).
    seed : int
        Decides in which order records of one score are guessed, for the bounds of epsilon.

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
    for name, rates in (("fprs", fprs), ("priors", priors)):
        for given in rates:
            if not 0.0 < given < 1.0:
                raise ValueError(f"Argument `{name}` should hold rates in (0, 1), but got {given}.")
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(is_member)
    if calibration is None:
        calibration = calibration_half([str(i) for i in range(values.size)])
    for name, flags in (("is_member", labels), ("calibration", calibration)):
        if values.ndim != 1 or flags.shape != values.shape or flags.dtype != np.bool_:
            raise ValueError(
                f"Argument `{name}` should be a boolean array as long as `scores`, but got "
                f"{flags.dtype} of shape {flags.shape} for scores of shape {values.shape}."
            )
    if not 0.0 <= delta < 1.0:
        raise ValueError(f"Argument `delta` should be in [0, 1), but got {delta}.")
    everything = values, labels, calibration
    scored = ~np.isnan(values)
    n_unscored = int(np.count_nonzero(~scored))
    if n_unscored:
        values, labels, calibration = values[scored], labels[scored], calibration[scored]
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

    errors = [(1.0 - confidence) / 2, *LADDER]
    curve = roc.roc_curve(values, labels)
    halves = Halves.split(values, labels, calibration)

    def at_budget(max_fpr: float) -> TprAtFpr:
        resolvable = roc.allowed_false_positives(max_fpr, n_non_members) >= 1
        estimate = None
        if resolvable:
            found = tpr_limits(curve, max_fpr, errors)
            estimate = LimitedEstimate(**limited(roc.tpr_at_fpr(curve, max_fpr), found))
        return TprAtFpr(
            max_fpr=max_fpr,
            resolvable=resolvable,
            estimate=estimate,
            needed_non_members=roc.needed_non_members(max_fpr),
            held_out=rates_held_out(halves, max_fpr, priors=priors, confidence=confidence),
        )

    epsilon = [epsilon_held_out(halves, delta=delta, confidence=confidence)]
    if randomized and not fitted:
        guesses = guess(*everything, delta=delta, confidence=confidence, seed=seed)
        if guesses is not None:
            epsilon.append(epsilon_one_run(guesses, delta=delta, confidence=confidence))
        if guesses is not None and delta > 0.0:
            epsilon.append(epsilon_one_run_gaussian(guesses, delta=delta, confidence=confidence))
    area, spread = roc.auc(curve), auc_spread_of(curve)
    limits = auc_limits(area, spread.fitted() if fitted else spread, errors)
    return AttackMetrics(
        target=target,
        attack=attack,
        n_members=n_members,
        n_non_members=n_non_members,
        n_unscored=n_unscored,
        auc=LimitedEstimate(**limited(area, limits)),
        held_out_auc=auc_held_out(halves, confidence=confidence, fitted=fitted),
        above_all=round(roc.tpr_at_fpr(curve, 0.0) * n_members),
        tpr=[at_budget(max_fpr) for max_fpr in fprs],
        balanced_accuracy=accuracy_held_out(halves, confidence=confidence),
        one_minus_eer=roc.one_minus_equal_error_rate(curve),
        epsilon=[bound for bound in epsilon if bound is not None],
        confidence=confidence,
    )


def _why_not(scores: roc.FloatArray, n_members: int, n_non_members: int) -> str | None:
    infinite = int(np.count_nonzero(np.isinf(scores)))
    if infinite:
        return f"{infinite} of {scores.size} scores are infinite"
    for count, kind in ((n_members, "members"), (n_non_members, "non-members")):
        if count < MIN_PER_CLASS:
            return f"{TOO_FEW} {MIN_PER_CLASS} {kind} must have a score; there are {count}"
    return None
