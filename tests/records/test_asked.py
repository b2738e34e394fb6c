"""Prompts that ask what a record asks are found by what stands before the answer."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from small_audit import BASE
from small_chat_audit import write_chat_audit, write_rows

from raymia.modalities.resolve import resolve_inputs
from raymia.records.asked import ALSO_ASKED, also_asked
from raymia.records.conversations import canonical, content_id, payload_of
from raymia.spec.file import load_spec

SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "What is a heron?"}
ANSWER = {"role": "assistant", "content": "A bird that wades."}
OTHER = {"role": "assistant", "content": "I do not know."}
FURTHER = {"role": "user", "content": "And a crane?"}
TOOLS = [{"type": "function", "function": {"name": "look_up"}}]


def payload(kind, row):
    content, reason = canonical(kind, row)
    assert reason is None
    return payload_of(content)


def is_found(kind, record, prompt):
    found = also_asked(kind, pa.chunked_array([[payload(kind, record)]]))
    among = found({"p": payload(kind, prompt)})
    assert among in ({}, {"p": ALSO_ASKED})
    return bool(among)


def talk(*turns, **others):
    return {"messages": list(turns), **others}


@pytest.mark.parametrize("prompt", [
    talk(ASKED),
    talk(ASKED, OTHER),
    talk({**ASKED, "content": [{"type": "text", "text": ASKED["content"]}]}),
    talk(ASKED, {**OTHER, "weight": 0}),
    talk(ASKED, chat_template_kwargs={"enable_thinking": False}),
])  # fmt: skip
def test_turns_of_a_record_are_found_without_its_answer(prompt):
    assert is_found("chat", talk(ASKED, ANSWER), prompt)


@pytest.mark.parametrize("prompt", [
    talk(SYSTEM, ASKED),
    talk(ASKED, tools=TOOLS),
    talk(FURTHER, ANSWER),
    talk(ASKED, ANSWER, FURTHER),
    talk({**ASKED, "role": "system"}),
])  # fmt: skip
def test_other_turns_and_other_tools_are_another_prompt(prompt):
    assert not is_found("chat", talk(ASKED, ANSWER), prompt)


def test_of_a_long_conversation_what_stands_before_its_last_answer_is_compared():
    record = talk(SYSTEM, ASKED, ANSWER, FURTHER, OTHER, tools=TOOLS)
    assert is_found("chat", record, talk(SYSTEM, ASKED, ANSWER, FURTHER, tools=TOOLS))
    assert not is_found("chat", record, talk(SYSTEM, ASKED, tools=TOOLS))


def test_a_conversation_that_goes_on_after_its_answer_asks_before_it_too():
    record = talk(ASKED, ANSWER, FURTHER)
    assert is_found("chat", record, talk(ASKED))
    assert is_found("chat", record, talk(ASKED, ANSWER, FURTHER, OTHER))


@pytest.mark.parametrize(("kind", "record", "same", "another"), [
    ("completion", {"prompt": "What?", "completion": "That."},
     {"prompt": "What?", "completion": "This."}, {"prompt": "Who?", "completion": "That."}),
    ("completion", {"prompt": [ASKED], "completion": [ANSWER]},
     {"prompt": [ASKED], "completion": [OTHER]}, {"prompt": [FURTHER], "completion": [ANSWER]}),
    ("tokens", {"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]},
     {"input_ids": [5, 6, 9], "labels": [-100, -100, 9]},
     {"input_ids": [5, 7, 8], "labels": [-100, 7, 8]}),
    ("completion", {"prompt": "", "completion": "That."}, None,
     {"prompt": "", "completion": "This."}),
    ("tokens", {"input_ids": [5, 6]}, None, {"input_ids": [7, 8]}),
    ("chat", talk(ANSWER), None, talk(OTHER)),
])  # fmt: skip
def test_prompts_of_every_format_are_compared_and_nothing_is_no_prompt(kind, record, same, another):
    assert same is None or is_found(kind, record, same)
    assert not is_found(kind, record, another)


def test_no_record_is_read_where_there_is_no_prompt():
    found = also_asked("chat", pa.chunked_array([["this is no JSON"]]))
    assert found({}) == found({"p": payload("chat", talk(ANSWER))}) == {}


def test_a_prompt_that_asks_what_a_member_was_asked_is_set_aside_and_named(tmp_path):
    made = {"kind": "self_prompt", "prompts": "asked.jsonl"}
    references = {"base": {"model": str(BASE)}, "own": made}
    file = write_chat_audit(tmp_path, count=4, references=references)
    lines = (tmp_path / "members.jsonl").read_text(encoding="utf-8").splitlines()
    members = [*map(json.loads, lines)]
    question = members[2]["messages"][:1]
    new = talk(FURTHER, ANSWER)
    rows = [talk(*question), new, talk(*question, OTHER), members[1]]
    write_rows(tmp_path / "asked.jsonl", rows)
    inputs = resolve_inputs(load_spec(file))
    assert inputs.modality.prompts["own"] == (payload("chat", new),)
    reasons = {one.where.split()[-1]: one.reason for one in inputs.records.set_aside}
    assert reasons["1"] == reasons["3"] == f"a prompt that is {ALSO_ASKED}"
    assert reasons["4"] == "a prompt that is also a record"
    ids = [one.record_id for one in inputs.records.set_aside]
    assert content_id(canonical("chat", rows[0])[0]) in ids


def test_of_tokens_of_several_turns_what_stands_before_the_last_answer_is_compared():
    record = {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, 6, -100, -100, 9]}
    same = {"input_ids": [5, 6, 7, 8, 4, 3], "labels": [-100] * 4 + [4, 3]}
    first = {"input_ids": [5, 6], "labels": [-100, 6]}
    assert is_found("tokens", record, same)
    assert not is_found("tokens", record, first)


def test_a_prompt_that_says_it_has_no_tools_asks_the_same():
    assert is_found("chat", talk(ASKED, ANSWER), talk(ASKED, tools=[]))
