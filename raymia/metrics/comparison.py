"""Whether one attack is better than another, and how many such questions were asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from raymia.metrics.delong import (
    FEWEST_COMPARED,
    Placements,
    beyond_placements,
    difference_of,
    placements,
)
from raymia.metrics.roc import BoolArray, FloatArray
from raymia.metrics.summary import Comparison

Place = tuple[str, str]
"""A target and an attack."""


@dataclass(frozen=True)
class Question:
    """A leading attack on its target, and what it is compared with."""

    between: Literal["attacks", "targets"]
    leader: Place
    other: Place


def compare(
    questions: Iterable[Question],
    scores_of: Callable[[Place], FloatArray],
    is_member: BoolArray,
    *,
    confidence: float = 0.95,
    fitted: Collection[str] = (),
) -> list[Comparison]:
    """Test differences of AUC on the records that both score.

    Parameters
    ----------
    questions : those of one leader stand together, so that it is ranked once. The p-values are
        corrected for their number; `corrected` does it for several lists taken together.
    scores_of : gives the scores of a target and an attack, float array of shape (n_records,), NaN
        for none.
    is_member : boolean array of shape (n_records,)
    confidence : float
        Nominal level of each interval, in (0, 1).
    fitted : attacks that were fitted on the labels of these records, whose AUCs scatter more.

    Returns
    -------
    One entry for each question, but those in which fewer than `FEWEST_COMPARED` members or
    non-members have both scores.
    """
    found: list[Comparison] = []
    led: tuple[Place, BoolArray, Placements] | None = None
    for question in questions:
        leader, other = scores_of(question.leader), scores_of(question.other)
        both = np.isfinite(leader) & np.isfinite(other)
        labels = is_member[both]
        n_members = int(np.count_nonzero(labels))
        if min(n_members, labels.size - n_members) < FEWEST_COMPARED:
            continue
        if led is None or led[0] != question.leader or not np.array_equal(led[1], both):
            led = question.leader, both, placements(leader[both], labels)
        sides = led[2], placements(other[both], labels)
        attacks = question.leader[1], question.other[1]
        beyond = sum(
            beyond_placements(own)
            for own, attack in zip(sides, attacks, strict=True)
            if attack in fitted
        )
        difference = difference_of(*sides, confidence=confidence, beyond=beyond)
        found.append(
            Comparison(
                between=question.between,
                target=question.leader[0],
                attack=question.leader[1],
                other_target=question.other[0],
                other_attack=question.other[1],
                n_members=n_members,
                n_non_members=labels.size - n_members,
                value=difference.value,
                low=difference.low,
                high=difference.high,
                confidence=confidence,
                p_value=difference.p_value,
                p_holm=1.0,
            )
        )
    return corrected(found)


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of a whole family of comparisons."""
    p_holm = holm(np.array([entry.p_value for entry in comparisons]))
    return [
        entry.model_copy(update={"p_holm": float(p)})
        for entry, p in zip(comparisons, p_holm, strict=True)
    ]


def holm(p_values: FloatArray) -> FloatArray:
    """Correct p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    The smallest is multiplied by how many there are, the next by one less, and none may come out
    below one before it. Rejecting those within a level makes any false rejection in the whole
    family no likelier than that level, however the tests depend on each other.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    stepped = p_values[order] * np.arange(p_values.size, 0, -1)
    p_holm = np.empty(p_values.size)
    p_holm[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return p_holm
