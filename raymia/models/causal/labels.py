"""Which tokens carried a loss, as a template's marks or a record's labels say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.models.causal.limits import RenderingError
from raymia.models.causal.reading import Bools
from raymia.records.conversations import NOT_TRAINED

GENERATION_MARK = "generation"


@cache
def has_marks(template: str | None) -> bool:
    """Whether a template marks what the assistant generates."""
    if template is None:
        return False
    import jinja2

    tokens = pairwise(jinja2.Environment().lexer.tokenize(template))
    return any(
        before.type == "block_begin" and token.value == GENERATION_MARK for before, token in tokens
    )


def runs_of(scored: Bools, chosen: Sequence[int], count: int) -> Bools:
    """Some of the runs of scored tokens; each is one of `count` answers."""
    numbers: npt.NDArray[np.int64] = np.cumsum(np.diff(scored, prepend=False) & scored) - 1
    if numbers[-1] + 1 != count:
        raise RenderingError(
            f"the template marks {numbers[-1] + 1} spans, and the conversation has {count} turns "
            "of the assistant, so it cannot be told which of them carried a loss; give tokens with "
            "labels"
        )
    return scored & np.isin(numbers, chosen)


def labelled(content: Mapping[str, Any], ids: Sequence[int]) -> Bools:
    """Which tokens of a record have a label; all where it gives none."""
    labels = content.get("labels")
    if labels is None:
        return np.ones(len(ids), bool)
    return np.array([label != NOT_TRAINED for label in labels], bool)
