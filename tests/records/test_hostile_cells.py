"""A cell that cannot be taken is one record that is set aside with its reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_templates import chat
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.records.conversations import COLUMNS, canonical, content_id, content_of, payload_of
from raymia.records.structured import read_records
from raymia.spec import TextRecordsSpec

TALK = chat("What is a heron?", "A bird that wades.")
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "[" + "7" * 5_000 + "]"
ALONE = "\ud800"


def read(path):
    return read_records(TextRecordsSpec(members=[str(path)]), "chat")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"messages": DEEP}, "messages: JSON that cannot be taken: nested more than 100 levels"),
        ({"messages": LONG}, "messages: JSON that cannot be taken: Exceeds the limit"),
        ({"messages": TALK, "tools": DEEP}, "tools: JSON that cannot be taken: nested more than"),
        ({"messages": TALK, "tools": LONG}, "tools: JSON that cannot be taken: Exceeds the limit"),
        ({"messages": TALK, "tools": [ALONE]}, "tools: not valid Unicode"),
        ({"messages": TALK, "system": ALONE}, "system: not valid Unicode"),
        ({"messages": TALK, "chat_template_kwargs": {"a": ALONE}}, "not valid Unicode"),
    ],
)
def test_a_cell_of_json_that_cannot_be_taken_sets_one_record_aside(tmp_path, bad, says):
    rows = [{"messages": TALK}, bad]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(tmp_path / "m.jsonl")
    assert len(found.ids) == 1
    (aside,) = found.set_aside
    assert aside.where.endswith("line 2")
    assert says in aside.reason


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("cell", "says"),
    [(DEEP, "nested more"), (LONG, "Exceeds"), ("{", "line 1")],
    ids=["deep", "long", "cut"],
)
def test_so_does_a_cell_that_a_table_keeps_as_json(tmp_path, suffix, cell, says):
    tools = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["[]", cell]))
    table = pa.table({"messages": [TALK, TALK[:1] * 2], "tools": tools})
    path = tmp_path / f"m.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    found = read(path)
    assert len(found.ids) == 1
    (aside,) = found.set_aside
    assert aside.where.endswith("row 2")
    assert aside.reason.startswith("tools: JSON that cannot be taken")
    assert says in aside.reason


def test_so_does_a_time_beside_a_turn(tmp_path):
    """As tables of conversations of users have it."""
    told = [{**turn, "time": datetime(2024, 1, 1, tzinfo=UTC)} for turn in TALK]
    plain = [{**turn, "time": None} for turn in TALK]
    pq.write_table(
        pa.Table.from_pylist([{"messages": told}, {"messages": plain}]),
        path := (tmp_path / "m.parquet"),
    )
    (aside,) = read(path).set_aside
    assert "messages holds what no JSON has (Object of type datetime is" in aside.reason


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(
    ["role", "content", "from", "value", "weight", "train", "tool_calls", "type", "text", "user",
     "assistant", "gpt", "system"]
)  # fmt: skip
CELLS = st.recursive(
    SCALARS | NAMES | st.just(ALONE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
COLUMN_NAMES = sorted(
    {"tools", "chat_template_kwargs", "system", "labels", "loss_mask", "attention_mask", "label",
     "position_ids", "seq_lengths", *(name for names in COLUMNS.values() for name in names)}
)  # fmt: skip


@pytest.mark.long
@settings(max_examples=150)
@given(
    st.sampled_from(sorted(COLUMNS)),
    st.dictionaries(st.sampled_from(COLUMN_NAMES), CELLS | CELLS.map(json.dumps)),
    st.booleans(),
)
def test_any_row_is_taken_or_set_aside(kind, row, has_talk):
    if has_talk and kind == "chat":
        row = {**row, "messages": TALK}
    content, reason = canonical(kind, row)
    if reason is None:
        assert content_id(content)
        assert payload_of(content_of(payload_of(content))) == payload_of(content)
    else:
        assert reason
