"""Dataset inference: was the target trained on these records, taken together?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from raymia.metrics.learning import MAX_FITTED, MIN_PER_CLASS, Features, Floats
from raymia.metrics.summary import Result


class DatasetInference(Result):
    """A test of the hypothesis that the target knows a set of records no better than non-members.

    Maini et al. 2024 (arXiv 2406.06443): a linear model over all attacks' scores is fitted on one
    half of the suspects and non-members, and its values on the other half are compared by a
    one-sided Welch t-test, a group by its mean. One small shift that all records share is enough: a
    low p-value says that the set as a whole was trained on, or that it is of another distribution.
    Where the half is of more than 131,072 records, the model is fitted on so many, drawn from it.
    """

    target: str = Field(description="name of the checkpoint under audit")
    suspects: str = Field(description="which records are tested: members or candidates")
    n_suspects: int = Field(ge=0, description="suspects that are compared; a group counts once")
    n_non_members: int = Field(
        ge=0, description="non-members that are compared; a group counts once"
    )
    fitted_on: int | None = Field(
        default=None,
        description="records that the model was fitted on, where they are a sample of the half",
    )
    has_groups: bool = Field(
        default=False, description="whether some of them are groups of several records"
    )
    p_value: float | None = Field(
        description="none where there are too few records, or nothing to compare"
    )
    effect: float | None = Field(description="difference of the means in standard deviations")


def infer_dataset(
    features: Features,
    is_suspect: npt.NDArray[np.bool_],
    is_fitted: npt.NDArray[np.bool_],
    units: npt.NDArray[np.int64],
    *,
    target: str,
    suspects: str,
) -> DatasetInference:
    """Fit on one part of the records, test on the other.

    Parameters
    ----------
    features : scores of all attacks.
    is_suspect : [records]; the others are non-members.
    is_fitted : [records], whether a record is fitted on; the others are tested.
    units : [records], the number of a record's group, or one of its own: records of a group are no
        independent draws, and its mean is.
    """
    from scipy import stats  # slow to import, and the types here are everywhere

    scored = features.are_there()  # a record without a score says nothing
    is_fitted, is_tested = is_fitted & scored, ~is_fitted & scored
    tested = is_tested & is_suspect, is_tested & ~is_suspect
    n_suspects, n_non_members = (np.unique(units[rows]).size for rows in tested)
    n_fitted = int(np.count_nonzero(is_fitted))
    common: dict[str, Any] = {
        "target": target,
        "suspects": suspects,
        "n_suspects": n_suspects,
        "n_non_members": n_non_members,
        "has_groups": bool(np.unique(units[is_tested]).size < np.count_nonzero(is_tested)),
        "fitted_on": MAX_FITTED if n_fitted > MAX_FITTED else None,
    }
    model = features.fit(is_fitted, is_suspect, "records that dataset inference is fitted on")
    if model is None or min(n_suspects, n_non_members) < MIN_PER_CLASS:
        return DatasetInference(**common, p_value=None, effect=None)
    above, below = (_means(features.judged(model, rows), units[rows]) for rows in tested)
    test = stats.ttest_ind(above, below, equal_var=False, alternative="greater")
    if not np.isfinite(test.pvalue):  # all values are one
        return DatasetInference(**common, p_value=None, effect=None)
    spread = np.sqrt((above.var(ddof=1) + below.var(ddof=1)) / 2)
    return DatasetInference(
        **common,
        p_value=float(test.pvalue),
        effect=float((above.mean() - below.mean()) / spread) if spread > 0 else 0.0,
    )


def _means(values: Floats, units: npt.NDArray[np.int64]) -> Floats:
    """The mean value of each unit."""
    places = np.unique(units, return_inverse=True)[1]
    means: Floats = np.bincount(places, weights=values) / np.bincount(places)
    return means
