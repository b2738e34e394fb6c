"""Blocks hold what a plan misses, each record once, with the neighbors that are known of it."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from small_inputs import audit
from tiny_models import BASE, PARAPHRASER

from raymia.engine import blocks
from raymia.engine.blocks import make_blocks
from raymia.engine.stage import FAILED, failures_in, todo_column, with_failed
from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.missing import Missing
from raymia.plan.planning import plan_audit
from raymia.plan.stages import Stage

RECORDS = 50


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Stage]:
    folder = tmp_path_factory.mktemp("audit")
    inputs = resolve_inputs(audit(folder, BASE, PARAPHRASER, references=None, attacks=["neighbor"]))
    (plan,) = plan_audit(inputs, EvidenceStore(str(folder / "store")))
    return plan.stages


def records(count: int = RECORDS) -> pa.Table:
    ids = pa.chunked_array(
        [[f"r{n}" for n in range(s, min(s + 7, count))] for s in range(0, count, 7)]
    )
    return pa.table({"record_id": ids, "payload": [f"text {n}" for n in range(count)]})


def lacking(stages: list[Stage], cells: dict[str, np.ndarray], ids: pa.ChunkedArray) -> list[Stage]:
    """The target's stage, with something missing of each question."""
    (target,) = (stage for stage in stages if stage.role == "target")
    questions = []
    for planned in target.questions:
        indices = planned.question.indices()
        missing = Missing.of(ids, indices, cells[planned.label])
        questions.append(replace(planned, missing=missing))
    return [replace(target, questions=tuple(questions))]


def shuffled(known: dict[tuple[int, int], str], draws: random.Random) -> list[pa.Table]:
    """Neighbors in parts of any order, as a store gives them."""
    rows = [{"row": r, "neighbor": n, "payload": p} for (r, n), p in known.items()]
    draws.shuffle(rows)
    schema = pa.schema(
        [("row", pa.int64()), ("neighbor", pa.int16()), ("payload", pa.large_string())]
    )
    return [pa.Table.from_pylist(rows[s : s + 11], schema=schema) for s in range(0, len(rows), 11)]


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("shelf", [4, 2**16])
def test_blocks_hold_what_is_missing_and_what_is_known(
    stages: list[Stage], monkeypatch: pytest.MonkeyPatch, shelf: int
) -> None:
    monkeypatch.setattr(blocks, "SHELF_ROWS", shelf)
    draws, table = random.Random(shelf), records()
    ids = table["record_id"]
    cells = {
        "tokens": np.array([[draws.random() < 0.3] for _ in range(RECORDS)]),
        "neighbors": np.array([[draws.random() < 0.4] * 2 for _ in range(RECORDS)]),
    }
    known = {
        (int(r), int(c) + 1): f"neighbor {c} of {r}" if (r + c) % 5 else None
        for r, c in zip(*np.nonzero(cells["neighbors"]), strict=True)
    }
    (stage,) = asking = lacking(stages, cells, ids)
    made = list(make_blocks(asking, table, shuffled(known, draws), 3))
    asked = [n for n in range(RECORDS) if cells["tokens"][n].any() or cells["neighbors"][n].any()]
    assert [block.num_rows for block in made[:-1]] == [3] * (len(made) - 1)
    assert len(made) == -(-len(asked) // 3)
    rows = [row for block in made for row in block.to_pylist()]
    assert [row["record_id"] for row in rows] == [f"r{n}" for n in asked]
    for number, row in zip(asked, rows, strict=True):
        assert row["payload"] == f"text {number}"
        found = dict(zip(row["neighbor"], row["neighbor_payload"], strict=True))
        assert found == {index: text for (r, index), text in known.items() if r == number}
        assert row["failed"] == []
        for planned in stage.questions:
            first = planned.question.indices().start
            own = [int(c) + first for c in np.flatnonzero(cells[planned.label][number])]
            assert row[todo_column(planned.key)] == own
    assert all(column.num_chunks == 1 for block in made for column in block.columns)


def test_nothing_missing_makes_no_block(stages: list[Stage]) -> None:
    nothing = {"tokens": np.zeros((RECORDS, 1), bool), "neighbors": np.zeros((RECORDS, 2), bool)}
    ids = records()["record_id"]
    assert list(make_blocks(lacking(stages, nothing, ids), records(), (), 3)) == []


def test_records_other_than_those_planned_are_refused(stages: list[Stage]) -> None:
    everything = {"tokens": np.ones((RECORDS, 1), bool), "neighbors": np.ones((RECORDS, 2), bool)}
    ids = records()["record_id"]
    asking = lacking(stages, everything, ids)
    with pytest.raises(ValueError, match="other records"):
        next(make_blocks(asking, records().slice(1), (), 3))


@pytest.mark.usefixtures("local_ray")
def test_a_block_travels_without_the_records_beside_it(stages: list[Stage]) -> None:
    """A slice of an Arrow table may drag all of the table along."""
    import ray

    many = records(20_000)
    ids = many["record_id"]
    shape = len(ids)
    cells = {"tokens": np.ones((shape, 1), bool), "neighbors": np.ones((shape, 2), bool)}
    known = {(n, 1): "a neighbor " * 10 for n in range(shape)}
    made = make_blocks(lacking(stages, cells, ids), many, shuffled(known, random.Random(0)), 10)
    sizes = []
    for _, block in zip(range(3), made, strict=False):
        reference = ray.put(block)
        held = ray.experimental.get_object_locations([reference])[reference]
        sizes.append(held["object_size"])
    assert max(sizes) < 20_000


def test_how_large_a_block_is_may_change_from_one_to_the_next(stages: list[Stage]) -> None:
    everything = {"tokens": np.ones((RECORDS, 1), bool), "neighbors": np.ones((RECORDS, 2), bool)}
    ids = records()["record_id"]
    sizes = iter([1, 2, 100])
    asking = lacking(stages, everything, ids)
    made = list(make_blocks(asking, records(), (), lambda: next(sizes)))
    assert [block.num_rows for block in made] == [1, 2, RECORDS - 3]
    assert pa.concat_tables(made)["record_id"].to_pylist() == ids.to_pylist()


@pytest.mark.parametrize("n_rows", [0, 1, 1_000])
def test_targets_that_failed_are_written_into_a_block_once(n_rows):
    none = pa.array([[]] * n_rows, FAILED.type)
    block = pa.table([pa.array(map(str, range(n_rows))), none], pa.schema(
        [("record_id", pa.string()), FAILED]))  # fmt: skip
    failed = {f"adapter-{number}": "no weights" for number in range(1_000)}
    found = with_failed(block, failed)
    assert failures_in(found) == (failed if n_rows else {})
    assert found.schema == block.schema
    assert found["record_id"] == block["record_id"]
    assert found[FAILED.name].nbytes < 100_000
