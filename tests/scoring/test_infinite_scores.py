"""A score that is infinite is a fault of its attack, and stops no other."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa

from raymia.attacks.learned import LearnedCombination
from raymia.scoring.evidence import Known


def test_what_combines_attacks_takes_an_infinite_score_for_none():
    draws, size = np.random.default_rng(0), 200
    is_member = np.arange(size) < size // 2
    table = pa.table(
        {
            "record_id": [f"r{n}" for n in range(size)],
            "group": pa.nulls(size, pa.string()),
            "is_member": is_member,
        }
    )
    known = Known(SimpleNamespace(records=SimpleNamespace(table=table), fitted_on_labels=()))
    scores = {name: draws.normal(size=size) + is_member for name in ("one", "two")}
    scores["one"][[3, 150]] = np.inf, -np.inf
    labelled = known.labelled(scores)
    combined = LearnedCombination().score(SimpleNamespace(labelled=labelled))
    assert np.isfinite(combined).all(), "the other attack has a score of these records"
    assert np.isinf(scores["one"]).sum() == 2, "the attack itself is not measured, and says why"
