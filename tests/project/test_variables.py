"""Tests leave variables of the environment where they are: threads of libraries read them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from command_line import raymia

TESTS = Path(__file__).parents[1]
SETS_ALL_ANEW = re.compile(r"patch\.dict\(\s*\"?os\.environ\b|environ\.clear\(\)")


def test_a_command_in_this_process_sets_no_variable_that_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, given, put = dict(os.environ), [], os.putenv

    def putenv(name: bytes, value: bytes) -> None:
        given.append((os.fsdecode(name), os.fsdecode(value)))
        put(name, value)

    monkeypatch.setattr(os, "putenv", putenv)
    assert raymia("status", "nowhere", columns=99, RAYMIA_TEST_GIVEN="1").returncode == 2
    assert {("COLUMNS", "99"), ("RAYMIA_TEST_GIVEN", "1")} <= {*given}
    assert [name for name, value in given if before.get(name) == value and name != "COLUMNS"] == []
    assert dict(os.environ) == before


def test_no_test_sets_the_whole_environment_anew() -> None:
    found = [file for file in TESTS.rglob("*.py") if SETS_ALL_ANEW.search(file.read_text("utf-8"))]
    assert found == []
