"""What opens a door, or takes over a terminal, is not said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.util.credentials import hidden, hidden_in, hidden_json, sayable
from raymia.util.errors import InputError, RaymiaError

SECRET = "se/c+ret="


@pytest.mark.parametrize(
    "url",
    [
        "https://me:se/c+ret=@host/file",
        "s3://AKIA:se/c+ret=@bucket/key",
        "https://me:a@se/c+ret=@host/file",
        "https://dG/se/c+ret=@host/file",
        "https://me:se/c+ret=@127.0.0.1:8000/v1",
        "https://host/file?X-Amz-Signature=se/c+ret=&x=1",
        "https://host/file?a=1&amp;token=se/c+ret=",
    ],
)
def test_credentials_are_hidden_whatever_they_are_made_of(url):
    said = str(RaymiaError(f"<a href='{url}'>{url}</a>: not there"))
    assert SECRET not in said
    assert "ret=" not in said.replace("Signature=", "")
    assert said.endswith("</a>: not there")


@pytest.mark.parametrize(
    "url",
    [
        "https://medium.com/@someone/x",
        "hf://org/model@main/file.json",
        "http://localhost:8000/v1",
        "http://localhost/@x",
        "s3://bucket/a@b/c",
        "/folder/a:b@c",
    ],
)
def test_what_is_no_credential_is_said(url):
    assert hidden(f"{url}: not there") == f"{url}: not there"


def test_credentials_are_hidden_on_every_line_of_a_long_text():
    letters = "a+b/c" * 300_000
    lines = [letters, f"https://me:{SECRET}@host/file", letters, f"/file?token={SECRET}", letters]
    hidden_there = [letters, "https://***@host/file", letters, "/file?token=***", letters]
    assert hidden("\n".join(lines)) == "\n".join(hidden_there)


CODE = 'fetch("https://maps.example.com/json?key=" + KEY)\n'
SIGNED = "https://host/données.jsonl?sig=se/c+ret="
URLS = st.sampled_from([CODE, f"{SIGNED}\nand on", f"C:\\data {SIGNED}", f'say "{SIGNED}"', SIGNED])
STRINGS = st.lists(URLS | st.text(st.sampled_from("a:/@?&=\"\\\n\té🦄'"))).map("".join)


@given(st.recursive(STRINGS | st.integers() | st.none(), lambda inner: st.lists(inner)
       | st.dictionaries(STRINGS, inner)))  # fmt: skip
def test_json_whose_strings_are_hidden_is_json_of_hidden_strings(value):
    assert json.loads(hidden_json(json.dumps(value))) == hidden_in(value)


def test_each_string_is_hidden_by_itself():
    assert hidden_in({SIGNED: (CODE, [1, SIGNED, None])}) == {
        "https://host/données.jsonl?sig=***": [
            CODE,
            [1, "https://host/données.jsonl?sig=***", None],
        ]
    }
    assert hidden(f"{SIGNED}\\n") == "https://host/données.jsonl?sig=***\\n"


def test_control_characters_do_not_reach_the_terminal():
    words = "a\x1b[31mred\x07\x9b2J\u202egnp\r\x00\tb\n"
    assert sayable(words) == "a?[31mred??2J?gnp??\tb\n"
    assert InputError([words]).problems == [sayable(words)]
    assert sayable("größer 汉字 🦄 \u200d") == "größer 汉字 🦄 \u200d"
