"""Classifiers fitted on other records than they judge, for many labelings at the cost of few."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import scipy
from scipy import linalg

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

FOLDS = 5
MAX_FITTED = 2_500
"""Records that one classifier is fitted on; all are judged."""
PENALTY = 1.0
_AT_ONCE = 100
"""Labelings of which guesses are ranked at once: a rank takes many times what a guess does."""


class Classifier(Protocol):
    """Tells members from others by what it is fitted on; nothing about it is tuned."""

    def guess(self, fitted: Rows, judged: Rows, labels: Bools) -> Floats:
        """Fit on some records and guess others.

        Parameters
        ----------
        labels : [fitted, labelings].

        Returns
        -------
        [judged, labelings], higher for a member.
        """


class Features(Protocol):
    """What a kernel method sees of the records."""

    def similarities(self, fitted: Rows, judged: Rows) -> tuple[Any, Any]:
        """Similarities of records; what is fitted for them is fitted on ``fitted`` alone.

        Returns
        -------
        float [fitted, fitted] and [judged, fitted].
        """


def guess_out_of_fold(
    classifier: Classifier, labelings: Bools, folds: Rows, draws: np.random.Generator
) -> Floats:
    """Guess every record by a classifier that was fitted on other folds.

    Parameters
    ----------
    labelings : [records, labelings]; a classifier is fitted on each.
    folds : [records].
    draws : choose the records to fit on where there are too many.

    Returns
    -------
    float32 [records, labelings]: the place of each guess within its fold, in (0, 1), a tie counting
    half. Guesses by two classifiers are on two scales, and places on one.
    """
    places = np.full(labelings.shape, 0.5, np.float32)
    for fold in range(FOLDS):
        judged, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        if len(judged) == 0:
            continue
        fitted = others
        if len(others) > MAX_FITTED:
            fitted = np.sort(draws.choice(others, MAX_FITTED, replace=False))
        guesses = classifier.guess(fitted, judged, labelings[fitted])
        for start in range(0, guesses.shape[1], _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            ranks = scipy.stats.rankdata(guesses[:, some], axis=0)
            places[judged, some] = (ranks - 0.5) / len(judged)
    return places


class KernelRidge:
    """Kernel ridge regression on labels of 1 and -1, centered on the records it is fitted on.

    The mean similarity of a record to itself is scaled to 1, and the penalty is 1. The fit is
    linear in the labels, so that one factorization serves all labelings.
    """

    def __init__(self, features: Features) -> None:
        self.features = features

    def guess(self, fitted: Rows, judged: Rows, labels: Bools) -> Floats:
        from sklearn.preprocessing import KernelCenterer

        among, between = self.features.similarities(fitted, judged)
        centerer = KernelCenterer().fit(among)
        among = np.asarray(centerer.transform(among), np.float32)
        between = np.asarray(centerer.transform(between, copy=False), np.float32)
        scale = max(float(np.trace(among)) / len(among), 1e-12)
        signs = np.where(labels, np.float32(1), np.float32(-1))
        signs -= signs.mean(axis=0)
        penalized = among / scale + PENALTY * np.eye(len(among), dtype=np.float32)
        factor = linalg.cho_factor(penalized, overwrite_a=True, check_finite=False)
        between /= np.float32(scale)
        guesses: Floats = between @ linalg.cho_solve(factor, signs, check_finite=False)
        return guesses
