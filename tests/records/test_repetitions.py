"""Records that repeat others are found among many, whatever pieces they are read in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.records import base
from raymia.records.base import CONTRADICTION, Given, gather_records
from raymia.records.texts import SCHEMA
from raymia.util.errors import InputError
from raymia.util.reasons import REPEATED

CLASSES = {"members": True, "non_members": False, "candidates": None}
ROWS = st.lists(st.sampled_from([*"abcdef", ""]), max_size=9)
"""Ids; the empty one stands for a row that cannot be used."""


def by_hand(rows):
    """Who is kept, by class, and who is set aside why: as the documentation has it."""
    places = {name: {} for name in CLASSES}
    aside = []
    for name, ids in rows.items():
        for number, one in enumerate(ids):
            where = f"{name} {number}"
            if not one:
                aside.append((where, None, "no text"))
            elif one in places[name]:
                aside.append((where, one, f"{REPEATED} {places[name][one]}"))
            else:
                places[name][one] = where
    members, others, candidates = places.values()
    for one in sorted(members.keys() & others.keys()):
        aside += [(own.pop(one), one, CONTRADICTION) for own in places.values() if one in own]
    for one in sorted(candidates.keys() & (members.keys() | others.keys())):
        known = {**others, **members}[one]
        aside.append((candidates.pop(one), one, f"{REPEATED} {known}"))
    return {name: [*own] for name, own in places.items()}, aside


def read(rows):
    def of_class(name):
        for number, one in enumerate(rows[name]):
            where = f"{name} {number}"
            remarks = ("has a vowel",) if one in ("a", "e") else ()
            yield (
                Given(where, one, f"text {one}", remarks=remarks)
                if one
                else Given(where, reason="no text")
            )

    spec = SimpleNamespace(**{name: [name] if own else [] for name, own in rows.items()})
    return gather_records(spec, of_class, SCHEMA)


@given(ROWS, ROWS, ROWS, st.booleans())
def test_each_record_is_kept_once_and_the_others_are_named_in_the_order_of_the_files(
    members, non_members, candidates, clash
):
    rows = dict(zip(CLASSES, (members, non_members, candidates), strict=True))
    kept, aside = by_hand(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "_ROWS_PER_BATCH", 2)
        if clash:
            patch.setattr(base, "string_hashes", lambda ids: np.zeros(len(ids), np.uint64))
        if any(rows[name] and not kept[name] for name in rows):
            with pytest.raises(InputError, match="not one usable record"):
                read(rows)
            return
        found = read(rows)
    assert [(one.where, one.record_id, one.reason) for one in found.set_aside] == aside
    expected = [(one, f"text {one}", CLASSES[name]) for name in kept for one in kept[name]]
    columns = (found.table[c].to_pylist() for c in ("record_id", "payload", "is_member"))
    assert list(zip(*columns, strict=True)) == expected
    vowels = [f"{name} {rows[name].index(o)}" for name in kept for o in kept[name] if o in "ae"]
    assert found.remarks == ({"has a vowel": vowels} if vowels else {})
