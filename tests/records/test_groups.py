"""Groups of records: read with them, measured beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_inputs import audit, write_rows
from tiny_models import PARAPHRASER, passages

from raymia.modalities.resolve import resolve_inputs
from raymia.records.structured import read_records
from raymia.scoring.judge import Judge
from raymia.scoring.reduction import infer_datasets
from raymia.spec import TextRecordsSpec
from raymia.util.errors import InputError


@pytest.fixture
def inputs(tmp_path, tiny_gpt2):
    """Six documents of two records, one of which is both; one record without a document."""
    texts = passages(13)
    rows = [{"text": t, "doc": f"d{i // 2}"} for i, t in enumerate(texts[:12])]
    rows.append({"text": texts[12], "doc": None})
    records = {
        "members": write_rows(tmp_path / "m.jsonl", rows[:5]),
        "non_members": write_rows(tmp_path / "n.jsonl", rows[5:]),
        "group_column": "doc",
    }
    spec = audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, records=records, references=None,
                 neighbors=None, attacks=["loss", "zlib"])  # fmt: skip
    return resolve_inputs(spec)


def test_group_stands_beside_the_record(inputs):
    assert inputs.records.table["group"].to_pylist() == [f"d{i // 2}" for i in range(12)] + [None]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_group_is_read_from_every_format(tmp_path, suffix):
    path = tmp_path / f"r.{suffix}"
    if suffix == "csv":
        path.write_text("text,doc\none text,7\nanother,8\n")
    else:
        pq.write_table(pa.table({"text": ["one text", "another"], "doc": [7, 8]}), path)
    spec = TextRecordsSpec(members=str(path), group_column="doc")
    assert read_records(spec).table["group"].to_pylist() == ["7", "8"]


def test_a_whole_number_names_one_group_whatever_the_type_of_its_column(tmp_path):
    """pandas makes floats of the whole numbers in a column that has an empty cell."""
    pd.DataFrame({"text": ["a", "b"], "doc": [12, 7]}).to_parquet(tmp_path / "m.parquet")
    holed = pd.DataFrame({"text": ["c", "d", "e"], "doc": [12, None, 0.5]})
    holed.to_parquet(tmp_path / "n.parquet")
    assert pq.read_schema(tmp_path / "n.parquet").field("doc").type == pa.float64()
    spec = TextRecordsSpec(
        members=str(tmp_path / "m.parquet"),
        non_members=str(tmp_path / "n.parquet"),
        group_column="doc",
    )
    assert read_records(spec).table["group"].to_pylist() == ["12", "7", "12", None, "0.5"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_number_that_is_none_is_no_group(tmp_path, suffix):
    path = tmp_path / f"m.{suffix}"
    if suffix == "jsonl":
        path.write_text('{"text": "a", "doc": NaN}\n{"text": "b", "doc": 3.0}\n')
    else:
        pq.write_table(pa.table({"text": ["a", "b"], "doc": [float("nan"), 3.0]}), path)
    spec = TextRecordsSpec(members=str(path), group_column="doc")
    assert read_records(spec).table["group"].to_pylist() == [None, "3"]


def test_empty_cell_is_no_group(tmp_path):
    (tmp_path / "r.csv").write_text("text,doc\none text,\nanother, \nthird,a\n")
    spec = TextRecordsSpec(members=[str(tmp_path / "r.csv")], group_column="doc")
    assert read_records(spec).table["group"].to_pylist() == [None, None, "a"]


def test_group_column_that_is_not_there_is_named(tmp_path):
    spec = TextRecordsSpec(
        members=write_rows(tmp_path / "m.jsonl", [{"text": "a"}]), group_column="doc"
    )
    with pytest.raises(InputError, match=r"no column 'doc'; found: text.*as group_column"):
        read_records(spec)


def test_score_of_a_group_is_the_mean_of_its_records(inputs):
    """Records overlap, groups do not: members are d0, d1; d2 mixes; non-members d3 to d5."""
    loss = [9.0, 1.0, 4.0, 5.0, 0.0, 0.0, 8.0, -9.0, 3.0, -4.0, -3.0, 2.0, 7.0]
    lacking = [*loss[:10], None, *loss[11:]]
    judge = Judge.of(inputs)
    assert not judge.groups.hold_all
    of_loss, of_lacking, of_zlib = (
        judge.judge(np.array(scores, float), target="one", attack="a").group_metrics
        for scores in (loss, lacking, [0.0] * 13)
    )
    assert (of_loss.n_members, of_loss.n_non_members) == (2, 3)
    assert (of_loss.auc.value, of_loss.records_per_group) == (1.0, 2)
    # One score of d5 is missing, so every group is judged by its first: 9 and 4 against 8, 3 and 2.
    assert (of_lacking.auc.value, of_lacking.records_per_group) == (5 / 6, 1)
    assert of_zlib.auc.value == 0.5
    assert judge.groups.notes == [
        "1 group mixes members and others, not measured as groups; came: 'd2'",
        "1 record has no group, and the numbers on groups leave such records out",
    ]


def test_without_a_group_column_there_are_no_groups(tmp_path, tiny_gpt2):
    inputs = resolve_inputs(audit(tmp_path, tiny_gpt2, PARAPHRASER, attacks=["loss"]))
    judge = Judge.of(inputs)
    assert judge.groups is None
    assert judge.judge(np.zeros(6), target="one", attack="loss").group_metrics is None


def test_sets_are_tested_by_halves_that_split_no_group(inputs):
    (found,) = infer_datasets(inputs, "one", {"loss": np.arange(13.0)})
    assert (found.suspects, found.p_value) == ("members", None)
    assert found.n_suspects + found.n_non_members <= 13
