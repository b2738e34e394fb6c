"""Promise 1: an answer does not depend on batch mates, order, blocks or the number of actors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_audit import NEIGHBORS, Models, console, evidence, passages, write_small_audit

from raymia.records.texts import record_id
from raymia.run.audit import run_audit
from raymia.spec.file import load_spec

pytestmark = pytest.mark.usefixtures("local_ray")

TOLERANCE = 1e-5
TEXTS = 12  # of each class
ALONE = 3
KINDS = ("text.tokens", "text.neighbors")


def run(
    folder: Path,
    models: Models,
    texts: list[str],
    others: list[str],
    *,
    engine: str = "local",
    **resources: object,
) -> Path:
    """Audit the target alone, so each kind of evidence has one key; return the store."""
    file = write_small_audit(
        folder, models, members=texts, non_members=others, references=None, engine=engine,
        resources=resources,
    )  # fmt: skip
    assert run_audit(load_spec(file), console()).complete
    return folder / "store"


def of_all_lengths() -> list[str]:
    return [
        " ".join(text.split()[: 4 + 3 * i]) for i, text in enumerate(passages(None)[: 2 * TEXTS])
    ]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, models: Models) -> Path:
    """All records in one block of 64."""
    texts = of_all_lengths()
    folder = tmp_path_factory.mktemp("together")
    return run(folder, models, texts[:TEXTS], texts[TEXTS : 2 * TEXTS], block_records=64)


def assert_same_answers(one: Path, other: Path, records: set[str]) -> None:
    for kind in KINDS:
        left, right = evidence(one, kind), evidence(other, kind)
        wanted = {row for row in left if row[0] in records}
        assert wanted == {row for row in right if row[0] in records}
        assert wanted
        for row in wanted:
            a, b = left[row], right[row]
            assert a["error"] is None
            assert b["error"] is None
            if kind == "text.neighbors":
                assert a["token_count"] == b["token_count"]
                gap = abs(a["log_prob_sum"] - b["log_prob_sum"]) / a["token_count"]
                assert gap < TOLERANCE
                continue
            assert a["token_ids"] == b["token_ids"]
            for column in ("log_prob", "mean_log_prob", "std_log_prob"):
                np.testing.assert_allclose(a[column], b[column], rtol=0, atol=TOLERANCE)
            assert a["is_top1"] == b["is_top1"]
    left, right = (evidence(store, "neighbors.mask_fill") for store in (one, other))
    for record in records:
        for number in range(1, 1 + NEIGHBORS):
            assert left[record, number]["payload"] == right[record, number]["payload"] is not None


def test_reversed_order_blocks_of_one_and_two_actors(
    together: Path, tmp_path: Path, models: Models
) -> None:
    texts = of_all_lengths()
    members, others = texts[:TEXTS], texts[TEXTS : 2 * TEXTS]
    apart = run(
        tmp_path, models, others[::-1], members[::-1], engine="ray",
        block_records=1, target={"actors": 2, "batch_tokens": 128},
    )  # fmt: skip
    assert_same_answers(together, apart, {record_id(text) for text in members + others})


def test_a_record_that_is_alone(together: Path, tmp_path: Path, models: Models) -> None:
    texts = of_all_lengths()
    alone = run(tmp_path, models, [texts[ALONE]], [texts[TEXTS + ALONE]], block_records=1)
    assert_same_answers(together, alone, {record_id(texts[ALONE]), record_id(texts[TEXTS + ALONE])})
