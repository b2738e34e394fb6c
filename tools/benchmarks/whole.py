"""Whether evidence that is read in shards gives the same scores as evidence that is read whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from raymia.evidence import sharded
from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.plan.stages import TargetPlan
from raymia.scoring.parts import ScoreParts, score_parts
from raymia.scoring.reduction import Reduction, reduce_audit
from raymia.scoring.workers import Here


def held_to_whole(
    inputs: Inputs,
    store: EvidenceStore,
    plans: Sequence[TargetPlan],
    parts: ScoreParts,
    reduction: Reduction,
) -> dict[str, int]:
    """Score and measure once more, in this process and without shards.

    Parameters
    ----------
    parts, reduction : what came out in shards.

    Returns
    -------
    How many scores and measured results (metrics and comparisons) there are, and how many of them
    are not equal to the bit.
    """
    found = {"scores": 0, "other_scores": 0, "results": 0, "other_results": 0}
    with _in_one_shard(), score_parts(store.folder.url) as again:
        whole = reduce_audit(inputs, store, plans, again, Here())
        for plan in plans:
            expected = again.read(plan.name)
            for label, scores in parts.read(plan.name).items():
                equal = scores.view(np.int64) == expected[label].view(np.int64)
                found["scores"] += len(equal)
                found["other_scores"] += int((~equal).sum())
    results = [*reduction.metrics, *reduction.comparisons]
    for one, other in zip(results, [*whole.metrics, *whole.comparisons], strict=True):
        found["results"] += 1
        found["other_results"] += repr(one) != repr(other)
    return found


@contextmanager
def _in_one_shard() -> Iterator[None]:
    given: dict[str, Any] = {"SHARD_RECORDS": 2**62, "SHARD_BYTES": 2**62}
    before = {name: getattr(sharded, name) for name in given}
    try:
        for name, value in given.items():
            setattr(sharded, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(sharded, name, value)
