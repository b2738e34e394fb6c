"""What an attack gives for records, asked for and looked at: attacks come from outside, too."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.attacks import Attack
from raymia.attacks.base import Scores
from raymia.util.errors import RaymiaError
from raymia.util.plugins import describe_error, is_outside, origin

NO_QUERY = "The answers of models are stored: the next run asks none again"


class AttackFailedError(RaymiaError):
    """An attack gave no scores."""


def attack_scores(attack: Attack, evidence: Any, count: int, *, label: str, target: str) -> Scores:
    """One score per record, float64 [records].

    Parameters
    ----------
    evidence : what the attack may look at.
    count : of the records.
    label, target : names of the attack and of who is attacked, for messages.

    Raises
    ------
    AttackFailedError
        If the attack ends with an error, which is the cause, or gives anything else.
    """
    kind = type(attack)
    whose = f" of {origin(kind)}" if is_outside(kind) else ""
    title = f"attack {label}{whose} on target {target}"
    advice = f"Fix it, or take it out of `attacks`. {NO_QUERY}"
    try:
        scores = np.asarray(attack.score(evidence))
    except RaymiaError:
        raise
    except Exception as error:
        raise AttackFailedError(
            f"{title}: it ended with {describe_error(error, kind)}. {advice}"
        ) from error
    if scores.dtype.kind not in "biuf" or scores.shape != (count,):
        raise AttackFailedError(
            f"{title}: expected one score for each of {count} records, each a number and NaN for "
            f"none, but got {_described(scores)}. {advice}"
        )
    return scores.astype(np.float64, copy=False)


def _described(given: npt.NDArray[Any]) -> str:
    if given.dtype.kind in "biuf":
        return f"an array of shape {given.shape}"
    others = [value for value in given.astype(object).flat if not isinstance(value, Number)]
    return f"{others[0]!r}, which is a {type(others[0]).__name__}" if others else str(given.dtype)
