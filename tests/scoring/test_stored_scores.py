"""Scores that lie in files are measured exactly, each once, or refused with names."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_scores import METRICS, N, shuffled, whole

import raymia.storage.remote
from raymia.metrics.measuring import calibration_half, measure
from raymia.results.curves import curves_table
from raymia.results.scores import SCORES_SCHEMA
from raymia.scoring import stored
from raymia.scoring.stored import reduce_scores
from raymia.storage.files import Folder
from raymia.util.errors import InputError
from raymia.util.hashing import string_hashes


def expected(table):
    """Every attack measured by itself, from rows picked one by one."""
    found = {}
    pairs = zip(table["target"].to_pylist(), table["attack"].to_pylist(), strict=True)
    for target, attack in dict.fromkeys(pairs):
        rows = [
            r
            for r in table.to_pylist()
            if (r["target"], r["attack"]) == (target, attack) and r["is_member"] is not None
        ]
        found[target, attack] = measure(
            np.array([np.nan if r["score"] is None else r["score"] for r in rows]),
            np.array([r["is_member"] for r in rows]),
            calibration=calibration_half([r["record_id"] for r in rows]),
            target=target,
            attack=attack,
        )
    return found


def metrics_of(reduction):
    return {names: judged.metrics for names, judged in reduction.judged.items()}


@pytest.mark.parametrize("row_group", [1000, 90, 7])
def test_every_attack_is_measured_whatever_the_order_of_rows_and_files(tmp_path, row_group):
    table = whole()
    pq.write_table(table, tmp_path / "scores.parquet", row_group_size=row_group)
    one = reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)
    assert metrics_of(one) == expected(table)
    assert (one.rows, one.records) == (4 * N, N)

    mixed = shuffled(table)
    for number in range(3):
        part = mixed.slice(number * 120, 120)
        path = tmp_path / "parts" / f"folder={number}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(part, path, row_group_size=50)
    (tmp_path / "parts" / ".incomplete-1.parquet").write_bytes(b"half a file")
    many = reduce_scores(str(tmp_path / "parts"), metrics=METRICS)
    assert metrics_of(many) == metrics_of(one)
    for names, judged in one.judged.items():
        assert many.judged[names].claims == judged.claims
        np.testing.assert_array_equal(
            many.judged[names].curves.false_positives, judged.curves.false_positives
        )


def test_of_the_folder_of_a_run_the_scores_are_taken(tmp_path):
    """Beside them lie the curves, which have no records."""
    folder = tmp_path / "report"
    folder.mkdir()
    pq.write_table(whole(), folder / "scores.parquet")
    pq.write_table(curves_table([]), folder / "curves.parquet")
    from_folder = reduce_scores([str(folder)], metrics=METRICS)
    assert metrics_of(from_folder) == expected(whole())


def test_a_record_that_is_there_twice_is_named(tmp_path):
    table = whole()
    double = pa.concat_tables([table, table.slice(N + 4, 2)])
    pq.write_table(shuffled(double), tmp_path / "scores.parquet")
    with pytest.raises(
        InputError,
        match=r"target early, attack min_k\(k=0.2\): 2 records are there more than once: "
        r"record 4, record 5; expected one score",
    ):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


def test_a_row_that_is_missing_is_named(tmp_path):
    table = whole()
    lacking = pa.concat_tables([table.slice(0, 2 * N + 7), table.slice(2 * N + 8)])
    pq.write_table(shuffled(lacking), tmp_path / "scores.parquet")
    with pytest.raises(
        InputError,
        match="target late, attack loss has 89 scores and lacks 1 records that "
        "target early, attack loss has: record 7;",
    ):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


def test_a_row_in_the_place_of_another_is_named(tmp_path):
    rows = whole().to_pylist()
    rows[-1]["record_id"] = "stranger"
    pq.write_table(pa.Table.from_pylist(rows, SCORES_SCHEMA), tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=r"lacks 1 records that .* has: record 89;"):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


def test_labels_that_contradict_each_other_are_named(tmp_path):
    rows = whole().to_pylist()
    rows[-3]["is_member"] = False
    pq.write_table(pa.Table.from_pylist(rows, SCORES_SCHEMA), tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=r"disagree on whether 1 records are members: record 87"):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (whole().drop_columns(["is_member"]), "no column is_member; found: target, attack"),
        (whole().slice(0, 0), "no scores in"),
        (
            whole().set_column(0, "target", pa.nulls(4 * N, pa.string())),
            "rows without a target or an attack",
        ),
        (
            whole().set_column(2, "record_id", pa.nulls(4 * N, pa.string())),
            "rows without a record id",
        ),
    ],
)
def test_tables_that_are_not_of_scores_are_refused(tmp_path, table, message):
    pq.write_table(table, tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=message):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "scores.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"scores\.parquet: not a Parquet file of scores"):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


def test_equal_hashes_of_different_records_are_no_repetition(tmp_path, monkeypatch):
    """Hashes only find suspects; the ids themselves decide."""

    def poor(ids):
        return string_hashes(ids) % np.uint64(8)

    monkeypatch.setattr(stored, "string_hashes", poor)
    pq.write_table(whole(), tmp_path / "scores.parquet")
    found = reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)
    assert {judged.metrics.auc.value for judged in found.judged.values()} == {
        metrics.auc.value for metrics in expected(whole()).values()
    }
    table = pa.concat_tables([whole(), whole().slice(5, 1)])
    pq.write_table(table, tmp_path / "scores.parquet")
    with pytest.raises(InputError, match=r"1 records are there more than once: record 5;"):
        reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)


def test_no_more_than_one_attack_is_held_at_a_time(tmp_path, monkeypatch):
    """Of a file of mixed rows too: what is read is put aside row by row."""
    most = []
    monkeypatch.setattr(stored, "ROWS_AT_ONCE", 16)
    read = stored._read

    def counted(*arguments, **named):
        rows = read(*arguments, **named)
        most.append(rows.scores.size)
        return rows

    batches = stored._batches

    def counted_batches(*arguments):
        for table in batches(*arguments):
            assert table.num_rows <= 16
            yield table

    monkeypatch.setattr(stored, "_read", counted)
    monkeypatch.setattr(stored, "_batches", counted_batches)
    pq.write_table(shuffled(whole()), tmp_path / "scores.parquet")
    reduce_scores(str(tmp_path / "scores.parquet"), metrics=METRICS)
    assert most == [N] * 4


def test_a_store_that_fails_now_and_then_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(raymia.storage.remote, "FIRST_PAUSE_SECONDS", 0.001)
    url = f"memory://{tmp_path.name}"
    pq.write_table(whole(), tmp_path / "scores.parquet")
    folder = Folder(url)
    folder.write("scores.parquet", (tmp_path / "scores.parquet").read_bytes())
    disk, calls = folder.fs.fs, []
    for name in ("find", "cat_file"):
        monkeypatch.setattr(disk, name, every_other_fails(getattr(disk, name), name, calls))
    found = reduce_scores(url, metrics=METRICS)
    assert {pair: judged.metrics.auc for pair, judged in found.judged.items()} == {
        pair: metrics.auc for pair, metrics in expected(whole()).items()
    }
    assert set(calls) == {"find", "cat_file"}


def every_other_fails(call, name, calls):
    """A call of a filesystem that answers every second time."""

    def flaky(*arguments, **options):
        calls.append(name)
        if calls.count(name) % 2:
            raise ConnectionResetError("gone")
        return call(*arguments, **options)

    return flaky


def test_calibration_takes_half_of_the_records():
    half = calibration_half([f"record {i}" for i in range(100_000)])
    assert abs(half.mean() - 0.5) < 4 * 0.5 / np.sqrt(100_000)
