"""Token counts and settings that were tried: a change to what the store keeps of them is seen."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.evidence.sealed import read_counts, read_sealed, write_counts, write_sealed
from raymia.evidence.store import EvidenceStore
from raymia.evidence.upkeep import stored_things, unproven, verify
from raymia.util.errors import RaymiaError

COUNTS = np.array([0, 7, 2, 500_000], np.int64)
NAME, TRIED = "corpus/k.npy", "sweeps/k/a.json"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return EvidenceStore(str(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def whole(store):
    write_counts(store, NAME, COUNTS)
    return store.folder.read(NAME)


def old_counts(counts=COUNTS):
    buffer = io.BytesIO()
    np.save(buffer, counts)
    return buffer.getvalue()


def problems(store):
    return [problem for thing in stored_things(store) for problem in verify(store, thing)]


def put_in(store, name, content):
    path = Path(store.folder.path(name))
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_of_counts_is_seen_wherever_it_is(store, whole, data):
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    changed = bytearray(whole)
    changed[place // 8] ^= 1 << place % 8
    put_in(store, NAME, bytes(changed))
    with pytest.raises(RaymiaError, match=rf"{NAME}: damaged file \(.*delete it and run it again"):
        read_counts(store, NAME)
    assert [NAME in problem for problem in problems(store)] == [True]


def test_counts_that_are_cut_are_damaged_or_the_same(store, whole):
    for length in range(len(whole)):
        put_in(store, NAME, whole[:length])
        if length == len(old_counts()):
            np.testing.assert_array_equal(read_counts(store, NAME), COUNTS)
            continue
        with pytest.raises(RaymiaError, match="damaged file"):
            read_counts(store, NAME)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_old_counts_are_read_or_refused_and_never_verified(tmp_path_factory, data):
    store = EvidenceStore(str(tmp_path_factory.mktemp("old")))
    content = bytearray(old_counts())
    put_in(store, NAME, bytes(content))
    np.testing.assert_array_equal(read_counts(store, NAME), COUNTS)
    assert store.unproven == {NAME}
    (thing,) = stored_things(store)
    assert (list(verify(store, thing)), unproven(store, thing)) == ([], 1)
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    put_in(store, NAME, bytes(content))
    with suppress(RaymiaError):
        assert read_counts(store, NAME).min() >= 0


@pytest.mark.parametrize(
    "other", [COUNTS[None], COUNTS.astype(np.float64), -COUNTS], ids=["rows", "floats", "negative"]
)
def test_an_array_that_is_no_counts_is_damaged(store, other):
    put_in(store, NAME, old_counts(other))
    with pytest.raises(RaymiaError, match="it is no list of counts"):
        read_counts(store, NAME)


def test_counts_of_another_corpus_are_damaged(store, whole):
    put_in(store, "corpus/other.npy", whole)
    with pytest.raises(RaymiaError, match=r"other\.npy: damaged file"):
        read_counts(store, "corpus/other.npy")
    store.folder.remove("corpus/other.npy")


@pytest.mark.parametrize(
    ("name", "content", "is_damaged", "count"),
    [
        (TRIED, b"[]", False, 1),
        (TRIED, b"[{", True, 1),
        ("rates/a.json", b'{"seconds": 1}', False, 0),
        ("rates/a.json", b"[[[", True, 0),
        ("rates/a.json", b"[" * 9000, True, 0),
    ],
)
def test_verify_reads_what_carries_no_hash(tmp_path, name, content, is_damaged, count):
    store = EvidenceStore(str(tmp_path))
    put_in(store, name, content)
    (thing,) = stored_things(store)
    assert [name in problem for problem in verify(store, thing)] == [True] * is_damaged
    assert unproven(store, thing) == count


def test_a_changed_result_of_a_setting_is_seen_though_it_is_json(tmp_path):
    store = EvidenceStore(str(tmp_path))
    write_sealed(store.folder, TRIED, b'[{"auc": 0.51}]')
    assert read_sealed(store.folder, TRIED) == (b'[{"auc": 0.51}]', True)
    assert problems(store) == []
    put_in(store, TRIED, store.folder.read(TRIED).replace(b"0.51", b"0.91"))
    assert ["its content is not what its" in problem for problem in problems(store)] == [True]
    with pytest.raises(RaymiaError, match="damaged file"):
        read_sealed(store.folder, TRIED)
