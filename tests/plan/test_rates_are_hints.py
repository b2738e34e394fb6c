"""A rate in a store that cannot be read is passed over."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.evidence.store import EvidenceStore
from raymia.plan.rates import Rate, Rates

BAD = (
    "[[[",
    "[" * 100_000,
    "7" * 5_000,
    "\0",
    "[1]",
    '{"x": 1}',
    '{"seconds": "x", "items": 3}',
    '{"seconds": 1e999, "items": 3}',
    '{"seconds": 1, "items": 3, "size": 0}',
)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[-24:].replace("\0", "NUL"))
def test_a_rate_that_cannot_be_read_is_passed_over_and_written_anew(tmp_path, bad):
    rates = Rates(EvidenceStore(str(tmp_path)))
    rates.folder.write("rates/key.json", bad.encode())
    assert rates.get("key") is None
    rates.keep("key", Rate(0.5, 3, 2.0))
    assert rates.get("key") == Rate(0.5, 3, 2.0)


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())


@given(st.dictionaries(st.sampled_from(("seconds", "items", "size", "more")), VALUES))
def test_any_rate_is_read_or_passed_over(content):
    rates = Rates(EvidenceStore("memory://rates-that-are-hints"))
    rates.folder.write("rates/key.json", json.dumps(content).encode())
    found = rates.get("key")
    assert found is None or found.at(2.0) > 0
