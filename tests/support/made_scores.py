"""Tables of scores from random numbers, as runs store them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raymia.results.scores import SCORES_SCHEMA
from raymia.spec import MetricsSpec

METRICS = MetricsSpec(resamples=100)
N = 90


def rows_of(target, attack, seed, n=N):
    """A third members, a third others, a third candidates; the first record has no score."""
    draws = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    scores = draws.normal(size=n).round(1) + (kind == 0)
    scores[0] = np.nan
    return pa.table(
        {
            "target": [target] * n,
            "attack": [attack] * n,
            "record_id": [f"record {i}" for i in range(n)],
            "is_member": pa.array(kind == 0, mask=kind == 2),
            "score": pa.array(scores, mask=np.isnan(scores)),
            "p_value": pa.nulls(n, pa.float64()),
        },
        schema=SCORES_SCHEMA,
    )


def whole():
    names = [(t, a) for t in ("early", "late") for a in ("loss", "min_k(k=0.2)")]
    return pa.concat_tables([rows_of(*pair, seed) for seed, pair in enumerate(names)])


def shuffled(table, seed=0):
    return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))
