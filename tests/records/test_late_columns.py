"""Columns that come late: after many rows, in a later file, or in one of several classes."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_templates import chat

from raymia.records.conversations import content_of
from raymia.records.formats import LOOKED_AT
from raymia.records.structured import format_of_records, read_records
from raymia.spec import TextRecordsSpec
from raymia.util.errors import InputError

TOOLS = [{"type": "function", "function": {"name": "weather"}}]
LATE = LOOKED_AT + 1
"""Rows before a key comes that are more than what is looked at first."""


def talk(number):
    return {"messages": chat("How many herons?", f"{number}.")}


def tokens(number, **columns):
    return {"input_ids": [5, 6, number], **columns}


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else lines(rows))


def read(*members, **settings):
    spec = TextRecordsSpec(members=[str(path) for path in members], **settings)
    return read_records(spec, format_of_records(spec))


def contents(records):
    assert not records.set_aside
    return [content_of(payload) for payload in records.table["payload"].to_pylist()]


def refused(*members, **settings):
    with pytest.raises(InputError) as caught:
        read(*members, **settings)
    (problem,) = caught.value.problems
    return problem


# ------------------------------------------------------------------ what templates are given


@pytest.mark.parametrize("name", ["m.jsonl", "m.json"])
@pytest.mark.parametrize("key", ["tools", "system", "chat_template_kwargs"])
def test_a_key_that_only_a_late_row_has_is_a_part_of_that_record(tmp_path, name, key):
    value = {"tools": TOOLS, "system": "Be brief.", "chat_template_kwargs": {"loud": True}}[key]
    same = talk(0)
    write(tmp_path / name, [*map(talk, range(LATE)), {**same, key: value}])
    found = contents(read(tmp_path / name))
    assert len(found) == LATE + 1, "with another value it is no repetition of the first"
    if key == "system":
        assert found[-1]["messages"] == [{"role": "system", "content": value}, *same["messages"]]
    else:
        assert found[-1] == {**same, key: value}
    assert found[:-1] == list(map(talk, range(LATE)))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("with_tools", ["a", "b"])
def test_a_column_that_only_one_shard_has_is_null_in_the_others(tmp_path, suffix, with_tools):
    plain = "ab".replace(with_tools, "")
    write(tmp_path / "d" / f"{with_tools}.{suffix}", [{**talk(1), "tools": TOOLS}])
    write(tmp_path / "d" / f"{plain}.{suffix}", [talk(1)])
    for path in (tmp_path / "d", tmp_path / "d" / f"*.{suffix}"):
        found = contents(read(path))
        assert sorted("tools" in content for content in found) == [False, True]


def test_a_column_that_only_one_csv_has_is_null_in_the_others(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\n")
    (tmp_path / "b.csv").write_text('prompt,completion,tools\na,b,"[{""type"": ""function""}]"\n')
    found = contents(read(tmp_path / "*.csv"))
    assert found == [
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "completion": "b", "tools": [{"type": "function"}]},
    ]


def test_the_prompt_of_a_late_pair_is_read(tmp_path):
    pairs = [{"chosen": f"{n}", "rejected": "none"} for n in range(LATE)]
    write(tmp_path / "m.jsonl", [*pairs, {"prompt": "How many?", **pairs[0]}])
    assert contents(read(tmp_path / "m.jsonl"))[-1]["prompt"] == "How many?"


def test_a_column_that_a_format_must_have_is_still_asked_of_every_file(tmp_path):
    write(tmp_path / "d" / "a.parquet", [talk(1)])
    write(tmp_path / "d" / "b.parquet", [{"turns": "none"}])
    assert "b.parquet: no column 'messages'; found: turns" in refused(tmp_path / "d")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_column_that_the_audit_file_names_is_still_asked_of_every_file(tmp_path, suffix):
    write(tmp_path / "d" / f"a.{suffix}", [{**talk(1), "doc": "one"}])
    write(tmp_path / "d" / f"b.{suffix}", [talk(2)])
    said = refused(tmp_path / "d", group_column="doc")
    assert f"b.{suffix}" in said
    assert "no column 'doc'; found: messages. Name the right one as group_column" in said


# ------------------------------------------------------------------- which tokens had a loss


def whole(number):
    return {"labels": [-100, 6, number]}


@pytest.mark.parametrize("early", [{}, {"labels": None}])
@pytest.mark.parametrize("column", ["labels", "loss_mask", "completion_mask", "assistant_masks"])
def test_tokens_whose_loss_only_late_rows_tell_are_refused_by_both_rows(tmp_path, column, early):
    told = {column: [-100, 6, 9] if column == "labels" else [0, 1, 1]}
    rows = [*(tokens(n, **early) for n in range(LATE)), tokens(9, **told)]
    write(tmp_path / "m.jsonl", rows)
    said = refused(tmp_path / "m.jsonl")
    assert said.startswith(
        f"{tmp_path}/m.jsonl line {LATE + 1}: which tokens carried a loss is said by '{column}', "
        f"and at {tmp_path}/m.jsonl line 1 by none; "
    )
    assert "Give labels for each record" in said


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("first", ["told", "untold"])
def test_so_are_those_of_which_only_one_shard_tells_it(tmp_path, suffix, first):
    shards = [tokens(1, **whole(1))], [tokens(2)]
    for name, rows in zip("ab" if first == "told" else "ba", shards, strict=True):
        write(tmp_path / "d" / f"{name}.{suffix}", rows)
    said = refused(tmp_path / "d")
    assert said.startswith(f"{tmp_path}/d/b.{suffix} ")
    assert f"and at {tmp_path}/d/a.{suffix} " in said


def test_so_are_those_of_which_only_the_members_tell_it(tmp_path):
    write(tmp_path / "m.jsonl", [tokens(1, **whole(1))])
    write(tmp_path / "n.jsonl", [tokens(2)])
    said = refused(tmp_path / "m.jsonl", non_members=str(tmp_path / "n.jsonl"))
    assert "n.jsonl line 1: which tokens carried a loss is said by no column, and at " in said


def test_a_mask_beside_labels_that_only_late_rows_have_is_refused(tmp_path):
    early = [tokens(n, **whole(n)) for n in range(LATE)]
    write(tmp_path / "m.jsonl", [*early, tokens(9, **whole(9), loss_mask=[0, 0, 1])])
    assert "is said by 'labels' and 'loss_mask', and at" in refused(tmp_path / "m.jsonl")


def test_files_may_tell_the_loss_each_in_its_own_way(tmp_path):
    write(tmp_path / "a.jsonl", [tokens(1, **whole(1))])
    write(tmp_path / "b.jsonl", [tokens(2, loss_mask=[0, 1, 1])])
    found = contents(read(tmp_path / "a.jsonl", tmp_path / "b.jsonl"))
    assert [content["labels"] for content in found] == [[-100, 6, 1], [-100, 6, 2]]


def test_only_rows_that_were_filled_up_need_an_attention_mask(tmp_path):
    filled = {"input_ids": [5, 6, 7, 0], "attention_mask": [1, 1, 1, 0]}
    write(tmp_path / "m.jsonl", [*(tokens(100 + n) for n in range(LATE)), filled])
    assert contents(read(tmp_path / "m.jsonl"))[-1] == {"input_ids": [5, 6, 7]}


@pytest.mark.parametrize("place", ["a late row", "another shard"])
def test_a_late_mask_of_which_nobody_knows_what_it_says_is_refused(tmp_path, place):
    rows, masked = list(map(tokens, range(LATE))), tokens(9, prompt_mask=[1, 0, 0])
    write(tmp_path / "d" / "a.jsonl", [*rows, masked] if place == "a late row" else rows)
    write(tmp_path / "d" / "b.parquet", [masked if place == "another shard" else tokens(9)])
    said = refused(tmp_path / "d")
    where = f"a.jsonl line {LATE + 1}" if place == "a late row" else "b.parquet row 1"
    assert f"{where}: 'prompt_mask' may say which tokens carried a loss" in said


# ------------------------------------------------------------------------- what a record is


@pytest.mark.parametrize("place", ["a late row", "another shard"])
def test_a_late_column_that_leaves_open_what_a_record_is_is_refused(tmp_path, place):
    rows = [{"prompt": "a", "completion": f"{n}"} for n in range(LATE)]
    judged = {"prompt": "a", "completion": "b", "label": False}
    write(tmp_path / "d" / "a.jsonl", [*rows, judged] if place == "a late row" else rows)
    write(tmp_path / "d" / "b.jsonl", [judged if place == "another shard" else rows[0]])
    said = refused(tmp_path / "d")
    where = f"a.jsonl line {LATE + 1}" if place == "a late row" else "b.jsonl line 1"
    assert f"{where}: 'label' comes here for the first time" in said
    assert "of the format completion; name the format as `format`" in said
    assert "label" not in contents(read(tmp_path / "d" / "a.jsonl", format="completion"))[-1]


def test_texts_with_late_conversations_are_refused_unless_their_column_is_named(tmp_path):
    rows = [{"text": f"{n}"} for n in range(LATE)]
    write(tmp_path / "m.jsonl", [*rows, {"text": "last", **talk(1)}])
    assert f"line {LATE + 1}: 'messages' comes here for the first" in refused(tmp_path / "m.jsonl")
    assert read(tmp_path / "m.jsonl", text_column="text").table.num_rows == LATE + 1


def test_other_columns_that_come_late_change_nothing(tmp_path):
    write(tmp_path / "m.jsonl", [*map(talk, range(LATE)), {**talk(LATE), "id": 7, "prompt": "a"}])
    assert contents(read(tmp_path / "m.jsonl")) == list(map(talk, range(LATE + 1)))
