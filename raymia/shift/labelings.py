"""Labels drawn at random: what a guesser must beat.

Where members and non-members are a random split of one set of records, any other split was as
likely. A guesser is therefore done again on many random splits of the same records, fitting
included, and its AUC is compared with theirs. This holds for every guesser and every size, and the
guesser may be fitted across folds. DeLong's test may not be used there: the classifiers of two
folds are fitted on mostly the same records, and the folds' AUCs rise and fall together. For a
classifier that is the difference of the means of many features, the variance of the mean AUC is
twice DeLong's: each pair of folds counts once for the fold that fits and once for the one that is
judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_AT_ONCE = 25
"""Labelings; a rank takes many times what a score does."""


def random_labelings(
    is_member: Bools, units: Sequence[str], count: int, draws: np.random.Generator
) -> Bools:
    """Split the records again and again as they may have been split.

    A unit whose records are all of one kind keeps them so: the kinds are dealt out anew among such
    units. In a unit with both kinds they are dealt out anew among its records.

    Returns
    -------
    [records, 1 + count]; the first column is the labels as they are.
    """
    rows: dict[str, list[int]] = defaultdict(list)
    for row, unit in enumerate(units):
        rows[unit].append(row)
    kinds_of = {unit: {bool(is_member[row]) for row in own} for unit, own in rows.items()}
    mixed = [rows[unit] for unit, kinds in kinds_of.items() if len(kinds) == 2]
    pure = [unit for unit, kinds in kinds_of.items() if len(kinds) == 1]
    kinds = np.array([is_member[rows[unit][0]] for unit in pure], bool)
    in_pure = [row for unit in pure for row in rows[unit]]
    unit_of = np.repeat(np.arange(len(pure)), [len(rows[unit]) for unit in pure])
    found = np.repeat(is_member[:, None], 1 + count, axis=1)
    for column in range(1, 1 + count):
        found[in_pure, column] = draws.permutation(kinds)[unit_of]
        for own in mixed:
            found[own, column] = draws.permutation(is_member[own])
    return found


def aucs(scores: npt.NDArray[np.floating], labelings: Bools) -> Floats:
    """The AUC on every labeling, [labelings].

    Parameters
    ----------
    scores : [records], or [records, labelings] where they depend on the labeling.
    labelings : [records, labelings].
    """
    found = []
    for start in range(0, labelings.shape[1], _AT_ONCE):
        labels = labelings[:, start : start + _AT_ONCE]
        values = scores if scores.ndim == 1 else scores[:, start : start + _AT_ONCE]
        ranks = scipy.stats.rankdata(values, axis=0).reshape(len(scores), -1)
        members = labels.sum(axis=0)
        above = (ranks * labels).sum(axis=0) - members * (members + 1) / 2
        found.append(above / (members * (len(labels) - members)))
    return np.concatenate(found)


def p_value(found: Floats, sides: int) -> float:
    """The share of labelings on which a guesser is as good as on the first, that one included.

    Parameters
    ----------
    found : its AUCs, from :func:`aucs`.
    sides : 1 where only an AUC above 0.5 counts, 2 where one below counts as well.
    """
    strength = found - 0.5 if sides == 1 else np.abs(found - 0.5)
    # What differs by rounding alone is equal.
    return float(np.mean(strength >= strength[0] - 1e-12))


def widening(found: Floats, n_members: int, n_non_members: int) -> float:
    """How much wider than DeLong's an interval has to be, at least 1.

    The standard deviation over random labelings, over that of records which are scored one by one
    (Mann and Whitney 1947).
    """
    alone = np.sqrt((n_members + n_non_members + 1) / (12 * n_members * n_non_members))
    return max(1.0, float(found[1:].std() / alone))
