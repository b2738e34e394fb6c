"""The classifier that learned attacks share, and how records are split so that none is judged by
a classifier that was fitted on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.util.draws import stream_key

MIN_PER_CLASS = 10
"""Records of a class below which nothing is fitted."""

Floats = npt.NDArray[np.float64]


def fold_of(names: Sequence[str], folds: int, purpose: str) -> npt.NDArray[np.int64]:
    """A fold for each name, a function of the name alone: names that are equal stay together."""
    return np.array([stream_key(purpose, name) % folds for name in names], np.int64)


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
