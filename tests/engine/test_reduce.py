"""A reduction on Ray is the reduction in process, bit for bit, and the driver holds no scores."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answered_audit import two_answered
from made_scores import METRICS, shuffled, whole
from rich.console import Console

import raymia.run.audit
from raymia.engine.base import engine
from raymia.engine.on_ray.reduce import Tasks
from raymia.results.curves import curves_table
from raymia.scoring import reduction
from raymia.scoring.distinct import measure_distinct
from raymia.scoring.parts import ScoreParts, score_parts
from raymia.scoring.reduction import infer_all_datasets, reduce_audit, score_tables
from raymia.scoring.stored import reduce_scores
from raymia.scoring.workers import Here
from raymia.spec import ResourcesSpec
from raymia.util.errors import InputError, RaymiaError

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def tasks(tmp_path):
    console = Console(file=io.StringIO(), width=100)
    with engine(ResourcesSpec(), str(tmp_path), console) as start:
        executor = start()
        with executor.reporting() as board:
            yield executor.workers(board, str(tmp_path))


@pytest.fixture
def answered(tmp_path, tiny_gpt2):
    return two_answered(tmp_path, tiny_gpt2)


def test_ray_and_this_process_reduce_alike(answered, tasks, monkeypatch):
    inputs, store, plans = answered
    with score_parts(inputs.spec.store) as parts:
        here = reduce_audit(inputs, store, plans, parts, Here())
        names = [plan.name for plan in plans]
        tests = infer_all_datasets(inputs, names, parts, {}, Here())
        clusters = dict.fromkeys(inputs.records.ids[:2], "copies")
        distinct = measure_distinct(inputs, names, parts, clusters, Here())
        rows = pa.concat_tables(score_tables(inputs, plans, parts))

    def refused(*_, **__):
        raise AssertionError("this is done where the scores are")

    with score_parts(inputs.spec.store) as parts:
        with monkeypatch.context() as driver:
            for name in ("read", "write", "column"):
                driver.setattr(ScoreParts, name, refused)
            driver.setattr(type(inputs.modality), "evidence_on", refused)
            on_ray = reduce_audit(inputs, store, plans, parts, tasks)
            assert infer_all_datasets(inputs, names, parts, {}, tasks) == tests
            assert measure_distinct(inputs, names, parts, clusters, tasks) == distinct
        again = pa.concat_tables(score_tables(inputs, plans, parts))
    assert len(here.metrics) == len(distinct) == 6
    assert curves_table(on_ray.curves).equals(curves_table(here.curves))
    assert replace(on_ray, curves=[]) == replace(here, curves=[])
    assert again.equals(rows)
    assert rows.num_rows == 6 * inputs.records.table.num_rows
    assert not list(Path(store.folder.root, "scores").iterdir())


def test_few_scores_are_reduced_here_and_many_on_ray(answered, monkeypatch):
    inputs, _, plans = answered
    console = Console(file=io.StringIO())
    spec = inputs.spec
    with (
        engine(spec.resources, spec.store, console) as start,
        raymia.run.audit._workers(inputs, plans, start, spec.store) as workers,
    ):
        assert isinstance(workers, Here)
    monkeypatch.setattr(raymia.run.audit, "MAX_HERE", 6 * 6 - 1)
    with (
        engine(spec.resources, spec.store, console) as start,
        raymia.run.audit._workers(inputs, plans, start, spec.store) as workers,
    ):
        assert isinstance(workers, Tasks)
        shared = "shared", os.getpid()

        def double(given, number):
            assert given[0] == "shared"
            assert given[1] != os.getpid()
            return 2 * number

        assert workers.map("jobs", double, shared, [(n,) for n in range(5)]) == [0, 2, 4, 6, 8]


def test_stored_scores_are_reduced_alike(tmp_path, tasks):
    path = str(tmp_path / "scores.parquet")
    pq.write_table(shuffled(whole()), path, row_group_size=100)
    here, on_ray = (reduce_scores(path, metrics=METRICS, workers=w) for w in (Here(), tasks))
    assert list(on_ray.judged) == list(here.judged)
    for names, judged in here.judged.items():
        found = on_ray.judged[names]
        assert found.metrics == judged.metrics
        assert found.claims == judged.claims
        assert curves_table([found.curves]).equals(curves_table([judged.curves]))


def test_what_a_task_refuses_is_said_as_it_is_here(tmp_path, tasks):
    path = str(tmp_path / "scores.parquet")
    pq.write_table(pa.concat_tables([whole(), whole().slice(0, 1)]), path)
    with pytest.raises(InputError, match="1 records are there more than once: record 0;"):
        reduce_scores(path, metrics=METRICS, workers=tasks)


def test_an_attack_without_a_score_for_each_record_stops_the_run(answered, tmp_path, monkeypatch):
    inputs, store, plans = answered

    def short(*_):
        return np.zeros(3)

    monkeypatch.setattr(type(inputs.attacks[0].attack), "score", short)
    with pytest.raises(
        RaymiaError, match="attack loss on target one: expected one score for each of 6 records"
    ):
        reduce_audit(inputs, store, plans, ScoreParts(str(tmp_path), "s"), Here())


def test_a_record_that_is_there_twice_stops_the_run(answered, tmp_path):
    inputs, store, plans = answered
    table = inputs.records.table
    doubled = replace(inputs.records, table=pa.concat_tables([table, table.slice(2, 1)]))
    with pytest.raises(RaymiaError, match=f"1 records are there twice.*: {inputs.records.ids[2]}"):
        reduce_audit(
            replace(inputs, records=doubled), store, plans, ScoreParts(str(tmp_path), "s"), Here()
        )


def test_rows_come_in_pieces_of_one_attack(answered, monkeypatch):
    inputs, store, plans = answered
    monkeypatch.setattr(reduction, "ROWS_AT_ONCE", 4)
    with score_parts(inputs.spec.store) as parts:
        reduce_audit(inputs, store, plans, parts, Here())
        pieces = list(score_tables(inputs, plans, parts))
    assert [piece.num_rows for piece in pieces] == [4, 2] * 6
    assert all(len({*piece["attack"].to_pylist()}) == 1 for piece in pieces)
    ids = [i for piece in pieces for i in piece["record_id"].to_pylist()]
    assert ids == inputs.records.ids * 6
