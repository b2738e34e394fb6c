"""Lower bounds of the target's differential privacy, from what an attack achieved.

`epsilon_held_out` reads a bound off the rates of a threshold. It takes the records for independent
draws: a bound of how far the target tells members from non-members, which bounds epsilon where
membership was a matter of chance.

`epsilon_one_run` needs no independence of what the model does with the records, but that a fair
coin of its own decided for each whether it was trained on. One training run then tests as many
times as there are records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from raymia.metrics.held_out import Halves
from raymia.metrics.intervals import lower_limit, upper_limit
from raymia.metrics.limits import LADDER
from raymia.metrics.roc import BoolArray, FloatArray, IntArray
from raymia.metrics.summary import EpsilonBound

MAX_THRESHOLDS = 1_000
"""Thresholds tried on the calibration half; more would be near one of them."""
MAX_GUESSES = 5_000
"""Records whose membership is guessed in one run: the bounds take time that grows with it."""
GUESS_COUNTS = 24
"""How many numbers of guesses are tried at each end, on the calibration half."""
LARGEST = 50.0
"""No audit has the records to show an epsilon as large, or a mu."""


def epsilon_held_out(halves: Halves, *, delta: float, confidence: float) -> EpsilonBound | None:
    """Bound epsilon by max{0, ln((TPR - delta) / FPR), ln((TNR - delta) / FNR)} of one threshold.

    Any (epsilon, delta)-private target keeps both within epsilon (Kairouz, Oh and Viswanath 2015,
    theorem 2.1). In the place of the rates stand one-sided Clopper-Pearson limits, each at half the
    risk. The same two limits serve both directions, because TNR is 1 - FPR and FNR is 1 - TPR, so
    the larger of the two costs nothing more; and the threshold was chosen on the calibration half,
    by the same bound, so the number of thresholds tried costs nothing either.

    Returns
    -------
    EpsilonBound or None
        None where a half lacks members or non-members.
    """
    if not (halves.can_judge and halves.can_choose):
        return None
    curve = halves.calibration_curve
    points = _spread(curve.tpr.size - 1, MAX_THRESHOLDS)
    bounds = epsilon_of_counts(
        np.rint(curve.tpr[points] * curve.n_members),
        curve.n_members,
        np.rint(curve.fpr[points] * curve.n_non_members),
        curve.n_non_members,
        delta=delta,
        confidence=confidence,
    )
    threshold = curve.thresholds[points[np.argmax(bounds)] + 1]
    counts = (
        int(np.count_nonzero(halves.members > threshold)),
        halves.members.size,
        int(np.count_nonzero(halves.non_members > threshold)),
        halves.non_members.size,
    )
    found = [
        epsilon_of_counts(*counts, delta=delta, confidence=level)
        for level in (confidence, *(1.0 - error for error in LADDER))
    ]
    return EpsilonBound(
        method="held_out",
        value=max(0.0, float(found[0])),
        chosen_by=max(0.0, float(np.max(bounds))),
        limits=[max(0.0, float(bound)) for bound in found[1:]],
        high=_most_shown(counts, delta),
        delta=delta,
        confidence=confidence,
        n_judged=halves.members.size + halves.non_members.size,
    )


def epsilon_of_counts(
    true_positives: FloatArray | int,
    n_members: int,
    false_positives: FloatArray | int,
    n_non_members: int,
    *,
    delta: float,
    confidence: float,
) -> FloatArray:
    """Give the bound of `epsilon_held_out` for counts, not cut off at 0; -inf for none."""
    side = 0.5 + confidence / 2
    min_tpr = lower_limit(true_positives, n_members, side)
    max_fpr = upper_limit(false_positives, n_non_members, side)
    with np.errstate(divide="ignore"):
        of_members = np.log(np.maximum(min_tpr - delta, 0.0)) - np.log(max_fpr)
        of_others = np.log(np.maximum(1.0 - max_fpr - delta, 0.0)) - np.log(1.0 - min_tpr)
    return np.asarray(np.maximum(of_members, of_others))


def _most_shown(counts: tuple[int, int, int, int], delta: float) -> float | None:
    """The upper limit, at 5 %, of what a threshold shows of epsilon; None for one without end."""
    true, n_members, false, n_others = counts
    side = 1.0 - LADDER[0] / 2
    limits = []
    for over, under in (
        (float(upper_limit(true, n_members, side)), float(lower_limit(false, n_others, side))),
        (1.0 - float(lower_limit(false, n_others, side)),
         1.0 - float(upper_limit(true, n_members, side))),
    ):  # fmt: skip
        if over > delta:
            limits.append(np.inf if under <= 0.0 else float(np.log((over - delta) / under)))
    most = max([0.0, *limits])
    return None if np.isinf(most) else most


@dataclass(frozen=True)
class Guesses:
    """Records whose membership was guessed.

    Attributes
    ----------
    n_records : records that a coin decided about, guessed or not.
    n_guesses, n_correct : how many were guessed, and rightly.
    chosen_by : the bound of epsilon on the half that the numbers of guesses were chosen on.
    """

    n_records: int
    n_guesses: int
    n_correct: int
    chosen_by: float = 0.0


def guess(
    scores: FloatArray,
    is_member: BoolArray,
    calibration: BoolArray,
    *,
    delta: float,
    confidence: float,
    seed: int,
) -> Guesses | None:
    """Guess that the highest scores are members and the lowest are not, and abstain on the others.

    How many are guessed at each end is chosen on the calibration half, by the bound of epsilon; the
    guesses are made on the other half. Records of one score are guessed in random order, because
    the order that they are given in may tell their membership.

    Parameters
    ----------
    scores : float array of shape (n_records,); NaN for none, on which no guess is made.
    is_member, calibration : boolean arrays of shape (n_records,)
    delta, confidence : of the bound.

    Returns
    -------
    Guesses or None
        None where a half has no scores.
    """
    draws = np.random.Generator(np.random.Philox(seed))
    chosen_on = _ascending(scores, is_member, calibration, draws)
    judged = _ascending(scores, is_member, ~calibration, draws)
    max_guesses = min(chosen_on.size, judged.size, MAX_GUESSES)
    if not max_guesses:
        return None
    tried = np.unique(np.append(0, np.geomspace(1, max_guesses, GUESS_COUNTS).astype(np.int64)))
    high, low = (grid.ravel() for grid in np.meshgrid(tried, tried))
    within = (high + low > 0) & (high + low <= max_guesses)
    high, low = high[within], low[within]
    made, correct = high + low, _correct(chosen_on, high, low)
    # Without delta the bound is a limit of the share of right guesses. What delta takes from it
    # depends on how many there are, so the best of each size goes on.
    simple = lower_limit(correct, made, confidence)
    size = np.log2(made).astype(np.int64)
    finalists = [np.flatnonzero(size == s)[np.argmax(simple[size == s])] for s in np.unique(size)]
    finalists.sort(key=lambda i: -float(simple[i]))
    best, bound = int(finalists[0]), 0.0
    for i in finalists:
        if special.logit(simple[i]) <= bound:
            break
        of_this = _epsilon(
            Guesses(int(np.count_nonzero(calibration)), int(made[i]), int(correct[i])),
            delta,
            confidence,
        )
        if of_this > bound:
            best, bound = int(i), of_this
    found = _correct(judged, high[best : best + 1], low[best : best + 1])
    judged_records = int(np.count_nonzero(~calibration))
    return Guesses(judged_records, int(made[best]), int(found[0]), bound)


def epsilon_one_run(guesses: Guesses, *, delta: float, confidence: float) -> EpsilonBound:
    """Give the largest epsilon that the guesses contradict (Steinke et al. 2023, theorem 5.2)."""
    return EpsilonBound(
        method="one_run",
        value=_epsilon(guesses, delta, confidence),
        chosen_by=guesses.chosen_by,
        limits=[_epsilon(guesses, delta, 1.0 - error) for error in LADDER],
        delta=delta,
        confidence=confidence,
        n_judged=guesses.n_records,
        n_guesses=guesses.n_guesses,
        n_correct=guesses.n_correct,
    )


def one_run_p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Bound the chance that so many guesses are right under (epsilon, delta)-privacy.

    Without delta the right guesses among r are fewer than a binomial number B of r trials at
    e^epsilon / (1 + e^epsilon). Delta adds 2 m delta max_i P[v > B >= v - i] / i over i up to v,
    the number of right guesses (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846, theorem 5.2).
    """
    made, correct = guesses.n_guesses, guesses.n_correct
    if not correct:
        return 1.0
    chance = float(special.betainc(correct, made - correct + 1, special.expit(epsilon)))
    if delta > 0.0:
        right = np.arange(correct - 1, -1, -1)
        log_pmf = special.gammaln(made + 1) - special.gammaln([right + 1, made - right + 1]).sum(0)
        log_pmf += right * special.log_expit(epsilon) + (made - right) * special.log_expit(-epsilon)
        nearly = np.cumsum(np.exp(log_pmf))
        chance += 2 * guesses.n_records * delta * float(np.max(nearly / np.arange(1, correct + 1)))
    return min(1.0, chance)


def epsilon_one_run_gaussian(guesses: Guesses, *, delta: float, confidence: float) -> EpsilonBound:
    """Give the largest mu whose Gaussian privacy the guesses contradict, and its epsilon.

    It holds where the privacy of training is that of a Gaussian mechanism, as DP-SGD's is nearly;
    there it is tighter than `epsilon_one_run`.
    """
    risk = 1.0 - confidence
    mu = _largest(lambda mu: bool(contradicts_gaussian(guesses, mu, risk)))
    return EpsilonBound(
        method="one_run_gaussian",
        value=epsilon_of_gaussian(mu, delta),
        chosen_by=guesses.chosen_by,
        delta=delta,
        confidence=confidence,
        n_judged=guesses.n_records,
        n_guesses=guesses.n_guesses,
        n_correct=guesses.n_correct,
        mu=mu,
    )


def contradicts_gaussian(guesses: Guesses, mu: float, risk: float) -> bool:
    """Whether so many right guesses had a chance below `risk` under mu-Gaussian privacy.

    Mahloujifar, Melis and Chaudhuri 2025 (arXiv 2410.22235). Let p_l be the chance of l right
    guesses among g of m records. For any i, r = sum_{l >= i} l p_l / m is the chance, averaged over
    the records, that a record is guessed rightly along with i - 1 others or more, and
    h = sum_{l >= i-1} (g - l) p_l / m that it is guessed wrongly along with i - 1 or more rightly.
    The two events differ in one record's membership, so privacy asks for
    h >= Phi(Phi^-1(r) - mu). If the chance of v right guesses or more were `risk`, this would ask
    for so much more below v, step by step down to 0, that the total exceeds what there is, g / m.
    """
    m, g, v = guesses.n_records, guesses.n_guesses, guesses.n_correct
    right, wrong, all_there_is = risk * v / m, risk * (g - v) / m, g / m
    for i in range(v - 1, -1, -1):
        needed = max(wrong, float(special.ndtr(special.ndtri(min(1.0, right)) - mu)))
        right += i / (g - i) * (needed - wrong)
        wrong = needed
        if right + wrong > all_there_is:
            return True
    return False


def epsilon_of_gaussian(mu: float, delta: float) -> float:
    """Give the epsilon of mu-Gaussian privacy at delta; infinite at delta 0.

    The root of Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu) = delta (Balle and Wang 2018,
    theorem 8).

    Examples
    --------
    >>> round(epsilon_of_gaussian(1.0, 1e-5), 2)
    4.38
    """
    if mu <= 0.0:
        return 0.0

    def excess(epsilon: float) -> float:
        lost = special.ndtr(mu / 2 - epsilon / mu)
        kept = np.exp(epsilon + special.log_ndtr(-mu / 2 - epsilon / mu))
        return float(lost - kept) - delta

    if excess(0.0) <= 0.0:
        return 0.0
    high = mu * (mu / 2 + 40.0)
    return float(optimize.brentq(excess, 0.0, high)) if excess(high) < 0.0 else float("inf")


def _epsilon(guesses: Guesses, delta: float, confidence: float) -> float:
    return _largest(lambda epsilon: one_run_p_value(guesses, epsilon, delta) <= 1.0 - confidence)


def _largest(is_contradicted: Callable[[float], bool], tolerance: float = 1e-3) -> float:
    """The largest value that is contradicted, which all below it are as well; 0 where none is."""
    low, high = 0.0, 1.0
    if not is_contradicted(low):
        return 0.0
    while high < LARGEST and is_contradicted(high):
        low, high = high, 2 * high
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if is_contradicted(middle) else (low, middle)
    return low


def _ascending(
    scores: FloatArray, is_member: BoolArray, rows: BoolArray, draws: np.random.Generator
) -> BoolArray:
    """Memberships of those rows that have a score, from the lowest, ties in random order."""
    order = draws.permutation(np.flatnonzero(rows & ~np.isnan(scores)))
    ascending: BoolArray = is_member[order[np.argsort(scores[order])]]
    return ascending


def _correct(ascending: BoolArray, high: IntArray, low: IntArray) -> IntArray:
    members = np.append(0, np.cumsum(ascending))
    correct: IntArray = members[-1] - members[ascending.size - high] + low - members[low]
    return correct


def _spread(size: int, max_size: int) -> IntArray:
    """Places among `size`, all of them or the more of them the nearer to either end."""
    if size <= max_size:
        return np.arange(size)
    from_end = np.unique(np.geomspace(1, size, max_size // 2).astype(np.int64)) - 1
    return np.unique(np.append(from_end, size - 1 - from_end))
