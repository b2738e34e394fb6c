"""Records that are more than a text: found by their columns, in one form, under one id."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chat_templates import chat

from raymia.records.conversations import (
    beginning,
    canonical,
    content_id,
    content_of,
    found_format,
    payload_of,
)
from raymia.records.structured import (
    CALLED,
    MASKED,
    NAMED,
    WEIGHTED,
    WITH_SYSTEM,
    format_of_records,
    read_records,
)
from raymia.records.tables import column_names
from raymia.records.texts import TOO_LONG
from raymia.spec import TextRecordsSpec
from raymia.util.errors import InputError
from raymia.util.reasons import REPEATED

TALK = chat("What is a heron?", "A bird that wades.")


PICTURE = {
    "role": "user",
    "content": [{"type": "text", "text": "what is this?"}, {"type": "image", "image": "a.png"}],
}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(folder, rows, **settings):
    spec = TextRecordsSpec(members=[write(folder / "m.jsonl", rows)], **settings)
    return read_records(spec, format_of_records(spec))


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (["text", "label"], "text"),
        (["text", "prompt", "completion"], "text"),
        (["messages", "tools"], "chat"),
        (["conversations", "id"], "chat"),
        (["prompt", "completion"], "completion"),
        (["prompt", "completion", "label"], "unpaired"),
        (["input_ids", "labels", "attention_mask"], "tokens"),
        (["chosen", "rejected"], "preference"),
        (["prompt", "chosen", "rejected"], "preference"),
        (["text", "messages"], None),
        (["messages", "prompt", "completion"], None),
        (["body"], None),
    ],
)
def test_columns_say_what_a_record_is_or_leave_it_open(columns, found):
    assert found_format(columns, "text") == found


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("m.csv", "\ufeffprompt,completion\n", ["prompt", "completion"]),
        ("m.tsv", "a,b\tc\n", ["a,b", "c"]),
        ("m.csv", '"never closed\n', []),
        ("m.txt", "prompt\n", []),
        ("m.jsonl", '\n{"a": 1}\n{"b": 2}\n{"c":', ["a", "b"]),
        ("m.jsonl", '["a"]\n', []),
        ("m.json", '{"a": 1}\n', ["a"]),
        ("m.json", ' [{"a": 1}, {"a": 1, "b": 2}]', ["a", "b"]),
        ("m.json", '[{"a": 1}', []),
    ],
)
def test_the_columns_of_a_file_are_those_that_its_rows_are_read_by(tmp_path, name, content, found):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert column_names(str(tmp_path / name)) == found


def test_what_the_columns_leave_open_is_asked_for_with_what_was_found(tmp_path):
    rows = [{"text": "a b", "messages": TALK}]
    with pytest.raises(InputError, match="leave open what a record is; found: text, messages"):
        read(tmp_path, rows)
    assert read(tmp_path, rows, format="chat").table.num_rows == 1
    assert read(tmp_path, rows, text_column="text").table["payload"].to_pylist() == ["a b"]


def test_columns_that_are_half_of_a_format_are_told_what_to_be_called(tmp_path):
    with pytest.raises(InputError, match="not all that any format has; found: prompt, response"):
        read(tmp_path, [{"prompt": "a", "response": "b"}])


def test_a_named_format_whose_columns_are_not_there_says_which_are(tmp_path):
    with pytest.raises(InputError, match="have 'messages', and here there is no 'messages'; found"):
        read(tmp_path, [{"prompt": "a", "completion": "b"}], format="chat")


def test_files_of_two_formats_are_refused(tmp_path):
    spec = TextRecordsSpec(
        members=[write(tmp_path / "a.jsonl", [{"messages": TALK}])],
        non_members=[write(tmp_path / "b.jsonl", [{"prompt": "a", "completion": "b"}])],
    )
    with pytest.raises(InputError, match=r"different formats: .*a\.jsonl has chat, .*has compl"):
        format_of_records(spec)


def test_share_gpt_and_messages_are_one_record(tmp_path):
    share_gpt = [
        {"from": "human", "value": "What is a heron?"},
        {"from": "gpt", "value": "A bird that wades."},
    ]
    found = read(tmp_path, [{"conversations": share_gpt}, {"messages": TALK}], format="chat")
    assert found.table.num_rows == 1
    assert found.set_aside[0].reason == "no key 'messages'"  # one column a file
    alone = read(tmp_path, [{"messages": TALK}])
    assert found.ids == alone.ids


def test_that_names_of_share_gpt_are_read_as_roles_is_said(tmp_path):
    human = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day."}]
    user = [{"from": "user", "value": "Hello"}, {"from": "assistant", "value": "Good night."}]
    found = read(tmp_path, [{"conversations": human}, {"conversations": user}])
    assert [line.startswith(f"records: 1 {NAMED}") for line in found.remark_lines()] == [True]


def test_that_calls_by_a_role_of_their_own_are_not_scored_is_said(tmp_path):
    call = {"role": "function_call", "content": "{}"}
    found = read(tmp_path, [{"messages": [TALK[0], call, *TALK[1:]]}, {"messages": TALK}])
    assert [line.startswith(f"records: 1 {CALLED}") for line in found.remark_lines()] == [True]


def test_a_system_prompt_in_a_column_becomes_a_turn_and_that_is_said(tmp_path):
    first = {"role": "system", "content": "Be brief."}
    rows = [
        {"messages": TALK, "system": "Be brief."},
        {"messages": [{**first, "content": "Be long."}, *TALK], "system": "Be brief."},
        {"messages": TALK, "system": ""},
    ]
    found = read(tmp_path, rows)
    begin = [content_of(p)["messages"][0]["content"] for p in found.table["payload"].to_pylist()]
    assert begin == ["Be brief.", "Be long.", TALK[0]["content"]]
    assert [line.startswith(f"records: 2 {WITH_SYSTEM}") for line in found.remark_lines()] == [True]


def test_what_one_record_gives_its_template_is_a_part_of_it(tmp_path):
    rows = [
        {"messages": TALK, "chat_template_kwargs": {"loud": True, "date": None}},
        {"messages": TALK, "chat_template_kwargs": None},
    ]
    given, plain = map(content_of, read(tmp_path, rows).table["payload"].to_pylist())
    assert given["chat_template_kwargs"] == {"loud": True}
    assert plain == {"messages": TALK}


def test_a_prompt_beside_answers_that_hold_it_is_left_out():
    said = {"chosen": TALK, "rejected": [TALK[0], {**TALK[1], "content": "A fish."}]}
    content, reason = canonical("preference", {**said, "prompt": TALK[0]["content"]})
    assert (content, reason) == (said, None)


def test_columns_of_alpaca_have_no_prompt_until_somebody_writes_it(tmp_path):
    with pytest.raises(InputError, match="Alpaca's columns, and what a training wrote around an"):
        read(tmp_path, [{"instruction": "a", "input": "", "output": "b"}])


def test_parquet_and_jsonl_give_one_id_whatever_the_order_of_keys(tmp_path):
    turned = [{"content": m["content"], "role": m["role"], "name": None} for m in TALK]
    path = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": turned}]), path)
    spec = TextRecordsSpec(members=[str(path)])
    assert read_records(spec, "chat").ids == read(tmp_path, [{"messages": TALK}]).ids


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_what_a_table_keeps_as_json_is_what_it_stands_for(tmp_path, suffix):
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    turns = [*TALK, {"role": "assistant", "content": ""}]
    said = pa.array([[json.dumps(call)]] * 3)
    calls = said.cast(pa.list_(pa.json_()))
    columns = {key: [turn.get(key) for turn in turns] for key in ("role", "content")}
    message = pa.StructArray.from_arrays(
        [*map(pa.array, columns.values()), calls], [*columns, "tool_calls"]
    )
    table = pa.table({"messages": pa.ListArray.from_arrays([0, 3], message), "tools": calls[:1]})
    path = tmp_path / f"m.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    (payload,) = read_records(TextRecordsSpec(members=[str(path)]), "chat").table["payload"]
    content = content_of(payload.as_py())
    assert content["messages"] == [{**turn, "tool_calls": [call]} for turn in turns]
    assert content["tools"] == [call]


def test_the_order_of_keys_stays_for_templates_that_print_them():
    call = {"name": "weather", "arguments": {"z": 1, "a": 2}}
    turns = [*TALK[:1], {"role": "assistant", "tool_calls": [{"function": call}]}]
    content, reason = canonical("chat", {"messages": turns})
    assert reason is None
    kept = content["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert list(kept) == ["z", "a"]
    call["arguments"] = {"a": 2, "z": 1}
    assert content_id(canonical("chat", {"messages": turns})[0]) == content_id(content)


def test_one_chat_that_is_member_and_non_member_is_set_aside(tmp_path):
    other = chat("And a crane?", "Another bird.")
    spec = TextRecordsSpec(
        members=[write(tmp_path / "a.jsonl", [{"messages": TALK}, {"messages": other}])],
        non_members=[write(tmp_path / "b.jsonl", [{"messages": TALK}, {"messages": other[:1]}])],
    )
    found = read_records(spec, "chat")
    assert {one.reason for one in found.set_aside} == {"given as member and as non-member"}
    assert found.table.num_rows == 2


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("chat", {"messages": None}, "messages should be a list of messages, but is null"),
        ("chat", {"messages": []}, "messages has no message"),
        ("chat", {"messages": "hello"}, "messages is a text and no list"),
        ("chat", {"messages": [{"content": "a"}]}, "message 1 of messages has no role"),
        ("chat", {"messages": [{"role": "user"}]}, "message 1 of messages has no content"),
        ("chat", {"messages": ["a"]}, "should be an object with role and content"),
        ("completion", {"prompt": "a", "completion": " "}, "completion: empty"),
        ("completion", {"prompt": "a", "completion": TALK[1:]}, "some parts are texts"),
        ("tokens", {"input_ids": [1, 2], "labels": [1]}, "input_ids; give one for each token"),
        (
            "tokens",
            {"input_ids": [1, 2], "labels": [-100, -100]},
            "every label is -100, so no token was trained on; leave the record out",
        ),
        ("tokens", {"input_ids": [1, 2], "labels": [1, 7]}, "neither -100 nor the token"),
        ("tokens", {"input_ids": "12"}, "should be a list of whole numbers"),
        ("tokens", {"input_ids": [1, 2], "loss_mask": [1]}, "loss_mask of another length"),
        ("tokens", {"input_ids": [1, 2], "loss_mask": [1, 0.5]}, "a list of whole numbers"),
        ("tokens", {"input_ids": [1, 2], "loss_mask": [1, 2]}, "should hold 0 and 1 alone"),
        ("tokens", {"input_ids": [1, 2], "completion_mask": [1, 0]}, "every label is -100 or mas"),
        ("tokens", {"input_ids": [1, 2, 3], "seq_lengths": [1, 2]}, "a packed row of several"),
        ("tokens", {"input_ids": [1, 2, 3], "position_ids": [0, 1, 0]}, "a packed row of several"),
        (
            "tokens",
            {"input_ids": [1, 2], "attention_mask": [1]},
            "attention_mask of another length than input_ids; give one for each token; came: 1, 2",
        ),
        (
            "tokens",
            {"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]},
            "0 elsewhere than at one",
        ),
        ("tokens", {"input_ids": [1, 2], "attention_mask": [0, 0]}, "0 elsewhere than at one end"),
        ("tokens", {"input_ids": [1, 2], "attention_mask": [1, 2]}, "as that of a packed row does"),
        ("chat", {"messages": TALK, "system": 7}, "system should be a text"),
        ("chat", {"messages": TALK, "chat_template_kwargs": "a"}, "chat_template_kwargs should be"),
        ("chat", {"messages": [PICTURE]}, "message 1 of messages holds a part of the type 'image'"),
        ("chat", {"messages": [{**TALK[1], "weight": 0.5}]}, "has a weight other than 0 and 1"),
        ("chat", {"messages": [{**TALK[1], "train": "no"}]}, "has a train other than 0 and 1"),
        ("chat", {"messages": [{**TALK[0], "training": True}]}, "'user', says that it carried a"),
        (
            "completion",
            {"prompt": TALK[:1], "completion": [{**TALK[1], "weight": 0}]},
            "read in conversations alone",
        ),
        ("completion", {"prompt": None, "completion": "a"}, "prompt should be a text or a list of"),
        ("preference", {"chosen": "a", "rejected": "a"}, "are the same"),
        ("unpaired", {"prompt": "a", "completion": "b", "label": "yes"}, "true or false"),
    ],
)
def test_a_record_that_cannot_be_used_is_set_aside_with_the_reason(kind, row, reason):
    assert reason in (canonical(kind, row)[1] or "")


@pytest.mark.parametrize(
    ("masks", "labels"),
    [
        ({}, None),
        ({"attention_mask": [1, 1, 1, 1], "seq_lengths": [4], "position_ids": [0, 1, 2, 3]}, None),
        ({"assistant_masks": [0, 1, 1, 0]}, [-100, 6, 7, -100]),
        ({"completion_mask": [False, False, True, True]}, [-100, -100, 7, 8]),
        ({"loss_mask": [1, 1, 0, 1], "labels": [-100, 6, 7, 8]}, [-100, 6, -100, 8]),
        ({"completion_mask": [0, 1, 1, 1], "assistant_masks": [1, 1, 0, 1]}, [-100, 6, -100, 8]),
    ],
)
def test_masks_of_tokens_become_labels(tmp_path, masks, labels):
    found = read(tmp_path, [{"input_ids": [5, 6, 7, 8], **masks}])
    (payload,) = found.table["payload"].to_pylist()
    masked = any(name.endswith(("loss_mask", "completion_mask", "_masks")) for name in masks)
    assert [MASKED in line for line in found.remark_lines()] == [True] * masked
    said = {} if labels is None else {"labels": labels}
    assert content_of(payload) == {"input_ids": [5, 6, 7, 8], **said}


@pytest.mark.parametrize("left", [0, 2])
def test_what_a_row_was_filled_up_with_is_no_part_of_the_record(tmp_path, left):
    def filled(values, filler):
        return [filler] * left + values + [filler] * (2 - left)

    bare = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "position_ids": [0, 1, 2]}
    fillers = {"input_ids": 0, "labels": -100, "position_ids": 1}
    row = {name: filled(values, fillers[name]) for name, values in bare.items()}
    found = read(tmp_path, [{**row, "attention_mask": filled([1, 1, 1], 0)}])
    assert found.ids == read(tmp_path, [bare]).ids


def test_a_mask_of_which_nobody_knows_what_it_says_is_refused(tmp_path):
    with pytest.raises(InputError, match="'prompt_mask' may say which tokens carried a loss"):
        read(tmp_path, [{"input_ids": [5, 6], "prompt_mask": [1, 0]}])


def test_a_conversation_needs_a_file_that_can_hold_one(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('messages\n"[]"\n')
    with pytest.raises(InputError, match="nested, which no such file holds"):
        read_records(TextRecordsSpec(members=[str(path)]), "chat")


def test_labels_of_a_csv_are_true_or_false_by_their_words(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("prompt,completion,label\na,b,True\na,c,false\na,d,1\na,e,0\na,f,maybe\n")
    found = read_records(TextRecordsSpec(members=[str(path)]), "unpaired")
    labels = [content_of(payload)["label"] for payload in found.table["payload"].to_pylist()]
    assert labels == [True, False, True, False]
    assert [one.reason for one in found.set_aside] == ["label should be true or false"]
    as_text = [{"prompt": "a", "completion": "b", "label": "true"}]
    with pytest.raises(InputError, match="label should be true or false"):
        read(tmp_path, as_text)


@pytest.mark.parametrize("tools", [[], "[]"])
def test_a_row_that_says_it_has_no_tools_is_another_than_one_that_does_not(tools):
    content, _ = canonical("chat", {"messages": TALK, "tools": tools})
    assert content == {"messages": TALK, "tools": []}
    for nothing in ({}, {"tools": None}, {"tools": ""}):
        assert canonical("chat", {"messages": TALK, **nothing})[0] == {"messages": TALK}


def test_a_payload_holds_the_whole_record(tmp_path):
    (payload,) = (
        read(tmp_path, [{"messages": TALK, "tools": [{"type": "function"}]}])
        .table["payload"]
        .to_pylist()
    )
    assert content_of(payload) == {"messages": TALK, "tools": [{"type": "function"}]}


@pytest.mark.parametrize("key", ["weight", "train", "training"])
def test_turns_that_carried_no_loss_are_told_in_one_way(tmp_path, key):
    turns = [{**TALK[0], key: 0}, {**TALK[1], key: 0}, TALK[0], {**TALK[1], key: 1}]
    found = read(tmp_path, [{"messages": turns}, {"messages": TALK}])
    first, second = map(content_of, found.table["payload"].to_pylist())
    assert [message.get("trained") for message in first["messages"]] == [None, False, None, None]
    assert key not in first["messages"][1]
    assert second == {"messages": TALK}
    assert [WEIGHTED in line for line in found.remark_lines()] == [True]


@pytest.mark.parametrize("key", ["weight", "train", "training", "trained"])
def test_a_turn_that_says_what_its_role_says_is_the_turn_that_does_not(tmp_path, key):
    said = [{**TALK[0], key: False}, {**TALK[1], key: True}]
    found = read(tmp_path, [{"messages": TALK}, {"messages": said}])
    assert [content_of(one) for one in found.table["payload"].to_pylist()] == [{"messages": TALK}]
    assert [one.reason.partition(" ")[0] for one in found.set_aside] == [REPEATED.split()[0]]
    assert found.remark_lines() == []


# ------------------------------------------------------------------------------ length

LONG = "a heron, a bird that wades " * 40
ASKED = {"role": "user", "content": LONG}
ANSWERED = {"role": "assistant", "content": "b"}
LONG_ROWS = [
    {"prompt": LONG, "completion": "c"},
    {"prompt": "p", "completion": LONG},
    {"prompt": [ASKED], "completion": [ANSWERED]},
    {"messages": [ASKED, ANSWERED]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}, ANSWERED]},
    {"messages": [{"role": "user", "content": "who is it?"}] * 30 + [ANSWERED]},
    {"messages": [{"role": "user", "content": "q"}, ANSWERED], "system": LONG},
    {"messages": [{"role": "user", "content": "q"}, ANSWERED], "tools": [{"name": LONG}]},
    {"prompt": LONG, "chosen": "a", "rejected": "b"},
    {"chosen": "a", "rejected": LONG},
]


@pytest.mark.parametrize("row", LONG_ROWS, ids=" ".join)
def test_the_whole_of_a_record_has_one_limit(monkeypatch, row):
    kind = found_format(row, "text")
    content, reason = canonical(kind, row)
    assert reason is None
    length = len(payload_of(content))
    monkeypatch.setattr("raymia.records.texts.MAX_TEXT", length)
    assert canonical(kind, row) == (content, None)
    monkeypatch.setattr("raymia.records.texts.MAX_TEXT", length - 1)
    assert canonical(kind, row)[1] == f"{TOO_LONG}; came: {length:,}"


@pytest.mark.parametrize("more", [{}, {"labels": [1, 2, 3]}, {"attention_mask": [1, 1, 1]}])
def test_tokens_are_counted_as_such(tmp_path, monkeypatch, more):
    monkeypatch.setattr("raymia.records.texts.MAX_TOKENS", 3)
    long = {name: [*values, 1] for name, values in more.items()} | {"input_ids": [1, 2, 3, 1]}
    records = read(tmp_path, [{"input_ids": [1, 2, 3], **more}, long])
    assert [one.reason for one in records.set_aside] == [f"{TOO_LONG}; came: 4"]


@pytest.mark.parametrize("row", [row for row in LONG_ROWS if "tools" not in row], ids=" ".join)
def test_a_beginning_is_no_longer_than_it_may_be(row):
    content = canonical(found_format(row, "text"), row)[0]
    payload = payload_of(content)
    begun = beginning(payload, 700)
    assert len(begun) <= 700 + len(payload_of(_emptied(content)))
    assert [*content_of(begun)] == [*content]
    assert beginning(payload, len(payload)) == payload


def _emptied(value, key=""):
    if isinstance(value, str):
        return "" if key not in ("role", "type") else value
    if isinstance(value, list):
        return [_emptied(one, key) for one in value]
    return {name: _emptied(one, name) for name, one in value.items()}
