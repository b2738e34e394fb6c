"""What is read from a store is what was written into it, or it is refused with the file's name."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.evidence.integrity import column_digest, why_impossible
from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import PREPARED_HASHES, EvidenceKey, EvidenceStore
from raymia.evidence.upkeep import compact, stored_things, unproven, verify
from raymia.questions.text import SUM_SCHEMA, TOKEN_SCHEMA
from raymia.util.errors import RaymiaError

KEY = EvidenceKey("text.tokens", {"model": "m", "version": 1})
OTHER = EvidenceKey("text.tokens", {"model": "n", "version": 1})


def tokens(record, log_prob=(-1.5, -0.25, -7.0), **changes):
    row = {
        "record_id": record, "neighbor": 0, "token_ids": [5, 6, 7],
        "log_prob": log_prob and list(log_prob),
        "mean_log_prob": [-2.0, -3.0, -4.0], "std_log_prob": [1.0, 1.5, 0.5],
        "is_top1": [True, False, False], "truncated": False, "error": None,
    }  # fmt: skip
    return row | changes


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema=TOKEN_SCHEMA)


@pytest.fixture
def store(tmp_path):
    return EvidenceStore(str(tmp_path / "store"))


def part_of(store, key=KEY):
    (name,) = store.folder.names(key.folder, ".parquet")
    return Path(store.folder.path(f"{key.folder}/{name}"))


def problems(store):
    return [problem for thing in stored_things(store) for problem in verify(store, thing)]


def all_reads(store):
    """Every way in which an audit reads a key."""
    yield store.read(KEY)
    yield store.read(KEY, ["log_prob", "error"])
    yield store.read(KEY, ["log_prob"], records=["r3", "r11"])
    yield store.present(KEY, RowIndex(pa.chunked_array([[f"r{n}" for n in range(24)]])), range(1))


def same(one, other):
    return one.equals(other) if isinstance(one, pa.Table) else np.array_equal(one, other)


# ------------------------------------------------------------------------- content


@pytest.mark.long
def test_no_flipped_bit_changes_what_is_read_without_a_word(store):
    """300 bits all over the file, its pages, headers and footer: each read is refused or right."""
    draws = random.Random(0)
    store.commit(
        KEY, table(*(tokens(f"r{n}", [-draws.random() for _ in range(3)]) for n in range(24)))
    )
    file, expected = part_of(store), list(all_reads(store))
    whole = file.read_bytes()
    messages = []
    for place in draws.sample(range(8 * len(whole)), 300):
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        file.write_bytes(broken)
        try:
            found = list(all_reads(store))
        except RaymiaError as error:
            messages.append(str(error))
        else:
            assert all(map(same, found, expected)), f"bit {place} of {8 * len(whole)}"
    assert len(messages) > 150
    assert all(f"{file}: damaged evidence file" in message for message in messages)


@pytest.mark.parametrize("column", ["log_prob", "is_top1", "token_ids", "error", "record_id"])
def test_changed_values_in_a_sound_file_are_refused(store, column):
    store.commit(KEY, table(tokens("a"), tokens("b")))
    file = part_of(store)
    found = pq.read_table(file)
    values = found[column].to_pylist()
    changed = {
        "log_prob": [*values[:1], [-1.5, -0.25, -7.5]], "is_top1": [*values[:1], [True] * 3],
        "token_ids": [*values[:1], [5, 6, 8]], "error": [None, "x"], "record_id": ["a", "c"],
    }[column]  # fmt: skip
    place = found.schema.get_field_index(column)
    field = found.schema.field(column)
    pq.write_table(found.set_column(place, field, pa.array(changed, field.type)), file)
    with pytest.raises(RaymiaError, match=f"content changed after it was written: .*{column}"):
        store.read(KEY)
    assert f"column {column}" in "".join(problems(store))


def test_rows_that_were_taken_out_are_missed(store):
    store.commit(KEY, table(tokens("a"), tokens("b")))
    file = part_of(store)
    pq.write_table(pq.read_table(file).slice(0, 1), file)
    with pytest.raises(RaymiaError, match="it has 1 rows, and 2 were written"):
        store.read(KEY)


def test_a_part_of_another_key_is_refused(store):
    """A copy between folders would report one checkpoint's answers as another's."""
    store.commit(KEY, table(tokens("a")))
    store.commit(OTHER, table(tokens("a", [-3.0, -3.0, -3.0])))
    shutil.copy(part_of(store, OTHER), part_of(store))
    with pytest.raises(RaymiaError, match=f"it belongs to another key: {OTHER.hash}"):
        store.read(KEY)
    with pytest.raises(RaymiaError, match="another key"):
        store.read(KEY, ["log_prob"])


def test_what_was_merged_is_proven_anew(store):
    for n in range(6):
        store.commit(KEY, table(tokens(f"r{n}")))
    before = store.read(KEY).sort_by("record_id")
    assert compact(store, KEY.folder, max_parts=2) == 5
    assert store.read(KEY).sort_by("record_id").equals(before)
    assert problems(store) == []


def test_parts_of_earlier_versions_are_read_and_counted_as_not_proven(store):
    store.commit(KEY, table(tokens("a")))
    file = part_of(store)
    pq.write_table(table(tokens("a")), file)
    assert store.read(KEY).to_pylist() == [tokens("a")]
    assert problems(store) == []
    (thing,) = stored_things(store)
    assert unproven(store, thing) == 1
    store.commit(KEY, table(tokens("b")))
    (thing,) = stored_things(store)
    assert unproven(store, thing) == 1


def test_what_is_merged_from_a_part_that_nothing_proves_is_not_proven_either(store):
    store.commit(KEY, table(tokens("r0")))
    pq.write_table(table(tokens("r0")), part_of(store))
    for n in (1, 2):
        store.commit(KEY, table(tokens(f"r{n}")))
    before = store.read(KEY).sort_by("record_id")
    assert len(store.unproven) == 1
    assert compact(store, KEY.folder, max_parts=2) == 2
    again = EvidenceStore(store.folder.url)
    assert again.read(KEY).sort_by("record_id").equals(before)
    assert problems(again) == []
    (thing,) = stored_things(again)
    assert (unproven(again, thing), len(again.unproven)) == (1, 1)
    (part,) = thing.parts
    other = table(*(tokens(f"r{n}", [-9.0, -9.0, -9.0]) for n in range(3)))
    metadata = pq.read_schema(again.folder.path(part.name)).metadata
    pq.write_table(other.replace_schema_metadata(metadata), again.folder.path(part.name))
    with pytest.raises(RaymiaError, match="its content changed"):  # since it was merged
        again.read(KEY)


# -------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"log_prob": [-1.0, 0.5, -1.0]}, "log_prob 0.5 is above 0"),
        ({"log_prob": [-1.0, float("nan"), -1.0]}, "log_prob nan is not finite"),
        ({"mean_log_prob": [-1.0, float("-inf"), -1.0]}, "mean_log_prob -inf is not finite"),
        ({"std_log_prob": [1.0, -0.5, 1.0]}, "std_log_prob -0.5 is below 0"),
        ({"log_prob": [-1.0, -1.0]}, "token_ids has 3 values and log_prob 2"),
        ({"is_top1": [True] * 4}, "std_log_prob has 3 values and is_top1 4"),
    ],
)
def test_values_that_cannot_be_are_neither_written_nor_read(store, changes, says):
    wrong = table(tokens("a"), tokens("b", **changes))
    with pytest.raises(RaymiaError, match=f"not stored: record b: {says}"):
        store.commit(KEY, wrong)
    assert store.read(KEY) is None
    store.commit(KEY, table(tokens("a"), tokens("b")))
    file = part_of(store)
    pq.write_table(wrong, file)  # as an earlier version might have
    with pytest.raises(RaymiaError, match=f"{file.name}: damaged evidence file .record b: {says}"):
        store.read(KEY)


def test_what_failed_or_was_not_answered_may_be_empty(store):
    lists = ("token_ids", "log_prob", "mean_log_prob", "std_log_prob", "is_top1")
    failed = tokens("a", error="too long", **dict.fromkeys(lists))
    endpoint = tokens("b", mean_log_prob=None, std_log_prob=None)
    store.commit(KEY, table(failed, endpoint))
    assert store.read(KEY).to_pylist() == [failed, endpoint]


def test_rounding_above_zero_is_no_fault():
    assert why_impossible(table(tokens("a", [2e-7, -1.0, -1.0]))) is None


@pytest.mark.parametrize("column", ["log_prob_sum", "token_count"])
def test_sums_are_checked_too(column):
    row = {"record_id": "a", "neighbor": 1, "log_prob_sum": -4.0, "token_count": 3} | {
        column: 2.0 if column == "log_prob_sum" else -1
    }
    assert column in why_impossible(pa.Table.from_pylist([row], schema=SUM_SCHEMA))


# -------------------------------------------------------------------------- hashes

CELLS = st.one_of(st.none(), st.lists(st.floats(width=32), max_size=4))


@given(st.lists(CELLS, max_size=12), st.integers(0, 12))
def test_a_columns_hash_is_of_its_values_alone(cells, cut):
    """Not of chunks, slices or what stands in memory where a value is null."""
    kind = pa.list_(pa.float32())
    whole = pa.array(cells, kind)
    padded = pa.array([[9.0, 9.0], *cells, None], kind).slice(1, len(cells))
    chunks = pa.chunked_array([whole.slice(0, cut), padded.slice(cut)], kind)
    assert column_digest(whole) == column_digest(padded) == column_digest(chunks)


@given(st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=8))
def test_texts_are_told_apart_by_where_they_end_and_from_nothing(texts):
    digest = column_digest(pa.array(texts, pa.string()))
    others = [[*texts, ""], [*texts, None], ["".join(t or "" for t in texts)]]
    for other in others:
        assert (column_digest(pa.array(other, pa.string())) == digest) == (other == texts)


# ----------------------------------------------------------------------- prepared


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "made"
    (folder / "part").mkdir(parents=True)
    (folder / "facts.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "part" / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("change", ["edit", "remove", "add", "hashes"])
def test_a_prepared_model_that_is_not_as_it_was_made_is_refused(store, made, change):
    store.commit_prepared("k", made)
    folder = store.prepared_path("k")
    match change:
        case "edit":
            (folder / "part" / "config.json").write_text("{ }")
        case "remove":
            (folder / "model.safetensors").unlink()
        case "add":
            (folder / "adapter_config.json").write_text("{}")
        case "hashes":
            (folder / PREPARED_HASHES).write_bytes(b"\xff")
    with pytest.raises(RaymiaError, match="not as it was made; delete the folder"):
        EvidenceStore(store.folder.url).prepared_path("k")
    assert any("not as it was made" in problem for problem in problems(store))


def test_a_prepared_model_of_an_earlier_version_is_used_as_it_is(store, made):
    store.commit_prepared("k", made)
    folder = store.prepared_path("k")
    (folder / PREPARED_HASHES).unlink()
    (folder / "part" / "config.json").write_text("{ }")
    assert EvidenceStore(store.folder.url).prepared_path("k") == folder


# -------------------------------------------------------------------------- schema


def changed_schema(name, values, type_):
    plain = table(tokens("a"))
    return plain.set_column(plain.schema.get_field_index(name), name, pa.array(values, type_))


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (changed_schema("log_prob", ["x"], pa.string()), "log_prob is of string"),
        (changed_schema("log_prob", [-1.0], pa.float32()), "log_prob is of float"),
        (changed_schema("is_top1", [[1, 0, 0]], pa.list_(pa.int32())), "is_top1 is of list"),
        (changed_schema("record_id", [7], pa.int64()), "record_id is of int64"),
        (changed_schema("error", [7], pa.int64()), "error is of int64"),
        (table(tokens("a")).drop_columns(["mean_log_prob"]), "no column mean_log_prob"),
        (pa.table({"x": [1]}), "no column record_id, neighbor"),
    ],
)
def test_evidence_of_another_schema_is_refused(store, other, says):
    store.commit(KEY, table(tokens("a")))
    pq.write_table(other, Path(store.folder.path(f"{KEY.folder}/{'f' * 32}.parquet")))
    with pytest.raises(RaymiaError, match="damaged evidence file .*" + says):
        store.read(KEY)
    assert any(says in problem for problem in problems(store))


def test_evidence_of_a_kind_that_nobody_knows_has_any_columns(store):
    key = EvidenceKey("text.unheard", {"model": "m"})
    store.commit(key, pa.table({"record_id": ["a"], "neighbor": [0], "x": [1.5]}))
    assert store.read(key).to_pylist() == [{"record_id": "a", "neighbor": 0, "x": 1.5}]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_evidence_that_is_no_file_is_refused_and_not_waited_for(store, make):
    store.commit(KEY, table(tokens("a")))
    for name in (f"{'f' * 32}.parquet", "key.json"):
        Path(store.folder.path(f"{KEY.folder}/{name}")).unlink(missing_ok=True)
        make(Path(store.folder.path(f"{KEY.folder}/{name}")))
    with pytest.raises(RaymiaError, match="and a file is expected"):
        store.read(KEY)
    assert problems(store)
