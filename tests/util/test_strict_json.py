"""JSON from outside: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.util.strict_json import MAX_DEPTH, parse_array, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_is_json_is_taken(value):
    assert parse_json(json.dumps(value), unique_keys=True) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.text() | st.binary() | st.text(st.sampled_from('[]{}":,1e-\\u"dtrn ')))
def test_what_is_none_is_a_value_error(text):
    try:
        parse_json(text, unique_keys=True)
    except ValueError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_depth_is_limited_whatever_the_stack(opened):
    def nested(depth):
        return opened * depth + "1" + ("]" if opened == "[" else "}") * depth

    assert parse_json(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 900, 200_000):
        with pytest.raises(ValueError, match="nested more than 100 levels"):
            parse_json(nested(depth))


def test_much_that_is_not_deep_is_taken():
    assert len(parse_json("[" + ", ".join(["[1]"] * 1_000) + "]")) == 1_000


def test_a_key_that_is_written_twice_is_refused_on_request():
    assert parse_json('{"a": 1, "a": 2}') == {"a": 2}
    with pytest.raises(ValueError, match="the key 'a' is written twice"):
        parse_json('{"b": {"a": 1, "a": 2}}', unique_keys=True)


def test_an_element_of_an_array_with_a_key_that_is_written_twice_is_told_from_the_others():
    texts = '{"a": 1}', '{"a": 1, "a": 2}', '{"b": [{"c": {"d": 1, "d": 2}}, 3]}', "7"
    said = [reason for _, reason in parse_array(f"[{', '.join(texts)}]")]
    assert said == [None, "the key 'a' is written twice", "the key 'd' is written twice", None]
    # What is written over is no part of an element, and neither is what takes its place in memory.
    assert parse_array('[{"x": {"a": 1, "a": 2}, "x": 1}]')[0][1] == "the key 'x' is written twice"
    assert len(parse_array("[" + ", ".join(['{"a": {}}'] * 1_000) + "]")) == 1_000
