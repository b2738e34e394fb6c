"""The classifier that learned attacks share, and how records are split so that none is judged by
a classifier that was fitted on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.util.draws import generator, stream_key

MIN_PER_CLASS = 10
"""Records of a class below which nothing is fitted."""
MAX_FITTED = 2**17
"""Records that one model is fitted on, at most: what more of them teach, no audit shows."""
AT_ONCE = 2**17
"""Records that are looked at, or judged, at once."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


def fold_of(names: Sequence[str], folds: int, purpose: str) -> Rows:
    """A fold for each name, a function of the name alone: names that are equal stay together."""
    return np.fromiter((stream_key(purpose, name) % folds for name in names), np.int64, len(names))


@dataclass(frozen=True)
class Features:
    """Scores of several attacks, had for some records at a time.

    Attributes
    ----------
    scores : of each attack, [records]; NaN for none. They may lie on disk.
    chosen : the rows that the records are, where they are not all.
    """

    scores: Sequence[Floats]
    chosen: Rows | None = None

    def __len__(self) -> int:
        return len(self.scores[0]) if self.chosen is None else len(self.chosen)

    def of(self, records: Bools) -> Features:
        """The features of some of all records."""
        return self if records.all() else replace(self, chosen=np.flatnonzero(records))

    def at(self, rows: Rows | slice) -> Floats:
        """The features of some records, [rows, attacks]. An infinite score is a fault of its
        attack, and no number to learn from: it is NaN."""
        places = rows if self.chosen is None else self.chosen[rows]
        found = np.column_stack([own[places] for own in self.scores])
        found[np.isinf(found)] = np.nan
        return found

    def are_there(self) -> Bools:
        """Whether any attack has a score for the record, [records]."""
        found = np.zeros(len(self), np.bool_)
        for start in range(0, len(self), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            found[rows] = ~np.isnan(self.at(rows)).all(axis=1)
        return found

    def fit(self, records: Bools, labels: Bools, purpose: str) -> Any | None:
        """:func:`fit` on some records; where they are too many, on a sample of them.

        Parameters
        ----------
        records, labels : [records].
        purpose : of the draw.
        """
        rows = fitted_rows(np.flatnonzero(records), labels, purpose)
        return fit(self.at(rows), labels[rows])

    def judged(self, model: Any, records: Bools) -> Floats:
        """The log-odds that a model gives some records, in their order."""
        rows = np.flatnonzero(records)
        found = np.empty(rows.size)
        for start in range(0, rows.size, AT_ONCE):
            own = slice(start, start + AT_ONCE)
            found[own] = model.decision_function(self.at(rows[own]))
        return found


def fitted_rows(rows: Rows, labels: Bools, purpose: str) -> Rows:
    """The rows that one model is fitted on: all, or where they are more than :data:`MAX_FITTED` so
    many, drawn: as many of one class as of the other, as far as there are.

    Parameters
    ----------
    rows : ascending.
    labels : of all records.
    """
    if rows.size <= MAX_FITTED:
        return rows
    draws = generator(purpose)
    kinds = rows[labels[rows]], rows[~labels[rows]]
    most = max(MAX_FITTED // 2, MAX_FITTED - min(map(len, kinds)))
    kept = [draws.choice(own, most, replace=False) if len(own) > most else own for own in kinds]
    return np.sort(np.concatenate(kept))


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread what is computed in the block, by torch or scikit-learn.

    What is fitted on a few thousand records is so small that threads wait for each other longer
    than they compute: where another process is busy, two are ten times slower than one.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def fit(features: Floats, labels: npt.NDArray[np.bool_]) -> Any | None:
    """Fit a logistic regression on standardized scores; None with too few records of a class.

    Parameters
    ----------
    features : [records, features]; NaN is taken for the median, or for 0 where a feature has no
        value at all.
    labels : [records].
    """
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler

    if min(labels.sum(), (~labels).sum()) < MIN_PER_CLASS:
        return None
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        RobustScaler(),
        LogisticRegression(C=0.1, max_iter=5_000),
    )
    return model.fit(features, labels)
