"""The evidence store: every answer once, under a key that holds all that can change it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymia.evidence import store as evidence_store
from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import EvidenceKey, EvidenceStore, part_name, row_keys
from raymia.questions.text import SUM_SCHEMA, TOKEN_SCHEMA
from raymia.storage import files
from raymia.storage.moves import TEMPORARY_PREFIX
from raymia.storage.remote import RemoteFile
from raymia.util.errors import RaymiaError
from raymia.util.hashing import digest

KEY = EvidenceKey("text.neighbors", {"model": "m", "version": 1, "neighbors": "n"})


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    local = request.param == "local"
    return EvidenceStore(str(tmp_path / "store") if local else f"memory://{uuid.uuid4().hex}")


def rows(*pairs, value=-1.0):
    return pa.Table.from_pylist(
        [
            {"record_id": r, "neighbor": n, "log_prob_sum": value, "token_count": 3}
            for r, n in pairs
        ],
        schema=SUM_SCHEMA,
    )


def parts(store, key=KEY):
    return store.folder.names(key.folder, ".parquet")


def answered(store, key=KEY):
    table = store.read(key, columns=[])
    return set() if table is None else set(row_keys(table))


# ----------------------------------------------------------------------- round trips


def test_what_is_committed_is_read(store):
    table = rows(("a", 1), ("a", 2), ("b", 1))
    store.commit(KEY, table)
    assert store.read(KEY).equals(table)


def test_lists_nulls_and_errors_are_read_as_committed(store):
    table = pa.Table.from_pylist(
        [
            {"record_id": "a", "neighbor": 0, "token_ids": [1, 2], "log_prob": [-0.5, -1e-9],
             "mean_log_prob": [-1.0, -2.0], "std_log_prob": [0.0, 3.0], "is_top1": [True, False],
             "truncated": False, "error": None},
            {"record_id": "b", "neighbor": 0, "truncated": True, "error": "why"},
        ],
        schema=TOKEN_SCHEMA,
    )  # fmt: skip
    key = EvidenceKey("text.tokens", {"model": "m"})
    store.commit(key, table)
    assert store.read(key).equals(table)


@pytest.mark.parametrize("at_once", [1, 2, 5, 100])
def test_a_parts_name_is_the_hash_of_its_sorted_rows(monkeypatch, at_once):
    """Whatever of them is held at once, and for signs that JSON and sorting treat in their own
    ways."""
    monkeypatch.setattr(evidence_store, "NAMED_AT_ONCE", at_once)
    ids = ["b", "", "ä", 'a"\\', "\uffff", "\U0001f600", "b", "a", "\x01\n", "b"]
    table = rows(*((record, 300 - n) for n, record in enumerate(ids)))
    in_pieces = pa.concat_tables([table.slice(0, 3), table.slice(3)])
    expected = digest(sorted(row_keys(table))) + ".parquet"
    assert part_name(in_pieces) == part_name(table) == expected


def test_parts_are_read_together(store):
    store.commit(KEY, rows(("a", 1)))
    store.commit(KEY, rows(("b", 1), ("c", 1)))
    assert answered(store) == {("a", 1), ("b", 1), ("c", 1)}
    assert store.read(KEY).num_rows == 3


def test_a_part_that_is_replaced_while_its_columns_are_fetched_is_read_as_it_is_then(monkeypatch):
    """As by a worker that answers about the same rows, and not to the last digit alike."""
    store = EvidenceStore(f"memory://{uuid.uuid4().hex}")
    pairs = [(f"r{n}", n) for n in range(300)]
    store.commit(KEY, rows(*pairs))
    again = rows(*pairs)
    drawn = pa.array([-1.0 - n / 7 for n in range(300)], SUM_SCHEMA.field("log_prob_sum").type)
    again = again.set_column(again.schema.get_field_index("log_prob_sum"), "log_prob_sum", drawn)
    readinto, left = RemoteFile.readinto, [1]

    def replaced_after_a_piece(file, buffer):
        count = readinto(file, buffer)
        if left[0]:
            left[0] -= 1
            store.commit(KEY, again)
        return count

    monkeypatch.setattr(files, "READ_BYTES", 64)
    monkeypatch.setattr(RemoteFile, "readinto", replaced_after_a_piece)
    (name,) = parts(store)
    found = store.read_part(f"{KEY.folder}/{name}", ["record_id", "log_prob_sum"])
    assert not left[0]
    assert found["log_prob_sum"].equals(again["log_prob_sum"])


def test_a_part_that_is_damaged_is_blamed_also_where_it_is_fetched_in_pieces():
    store = EvidenceStore(f"memory://{uuid.uuid4().hex}")
    store.commit(KEY, rows(("a", 1)))
    name = f"{KEY.folder}/{parts(store)[0]}"
    store.folder.write(name, store.folder.read(name)[:-9])
    with pytest.raises(RaymiaError, match=rf"{name}: damaged evidence file \(.*delete it"):
        store.read_part(name, ["record_id"])


def test_columns_can_be_chosen_and_the_key_columns_always_come(store):
    store.commit(KEY, rows(("a", 1)))
    assert store.read(KEY, columns=["error"]).column_names == ["record_id", "neighbor", "error"]
    assert store.read(KEY, columns=[]).column_names == ["record_id", "neighbor"]
    assert store.read(KEY, columns=["neighbor"]).column_names == ["record_id", "neighbor"]


def test_nothing_is_stored_under_a_key_that_was_never_answered(store):
    assert store.read(KEY) is None
    assert answered(store) == set()
    store.commit(KEY, rows(("a", 1)))
    other = EvidenceKey(KEY.kind, {**KEY.parts, "model": "other"})
    assert store.read(other) is None


def test_empty_answer_writes_nothing(store):
    store.commit(KEY, rows())
    assert store.read(KEY) is None
    assert not store.folder.exists(f"{KEY.folder}/key.json")


def test_key_file_says_what_the_key_was_hashed_from(store):
    store.commit(KEY, rows(("a", 1)))
    content = json.loads(store.folder.read(f"{KEY.folder}/key.json"))
    assert content == {"kind": "text.neighbors", "model": "m", "version": 1, "neighbors": "n"}


def test_second_store_on_the_same_folder_reads_it(store):
    store.commit(KEY, rows(("a", 1)))
    assert answered(EvidenceStore(store.folder.url)) == {("a", 1)}


# ---------------------------------------------------------------- promise 3: each once


def test_same_rows_twice_are_one_part(store):
    store.commit(KEY, rows(("a", 1), ("b", 1)))
    store.commit(KEY, rows(("b", 1), ("a", 1)))
    assert len(parts(store)) == 1
    assert store.read(KEY).num_rows == 2


def test_rows_that_overlap_appear_once(store):
    store.commit(KEY, rows(("a", 1), ("b", 1)))
    store.commit(KEY, rows(("b", 1), ("c", 1)))
    store.commit(KEY, rows(("a", 1), ("b", 1), ("c", 1), ("c", 2)))
    found = store.read(KEY).to_pylist()
    assert len(found) == 4
    assert {(r["record_id"], r["neighbor"]) for r in found} == {
        ("a", 1), ("b", 1), ("c", 1), ("c", 2)
    }  # fmt: skip


def test_reading_twice_gives_the_same_rows_in_the_same_order(store):
    for number in range(20):
        store.commit(KEY, rows((f"r{number}", 1), (f"r{number + 1}", 1), value=-number))
    assert store.read(KEY).equals(store.read(KEY))
    chosen = store.read(KEY, columns=["record_id"])["record_id"].to_pylist()
    assert chosen == store.read(KEY)["record_id"].to_pylist()


@pytest.mark.long
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3))), max_size=6))
def test_whatever_is_committed_is_there_once(tmp_path_factory, batches):
    store = EvidenceStore(str(tmp_path_factory.mktemp("store")))
    for batch in batches:
        store.commit(KEY, rows(*dict.fromkeys(batch)))
    expected = {pair for batch in batches for pair in batch}
    assert answered(store) == expected
    assert (store.read(KEY).num_rows if expected else 0) == len(expected)


# ------------------------------------------------------------------- what has an answer


def test_records_and_indices_that_have_an_answer_are_told_in_their_order(store):
    store.commit(KEY, rows(("c", 1), ("a", 3), ("other", 1)))
    store.commit(KEY, rows(("a", 3), ("a", 4), ("a", 0)))
    found = store.present(KEY, RowIndex(pa.array(["a", "b", "c"])), range(1, 4))
    assert found.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    nobody = store.present(KEY, RowIndex(pa.array([], pa.string())), range(1, 4))
    assert nobody.shape == (0, 3)


def test_what_has_an_answer_is_told_part_by_part_and_by_its_two_columns(tmp_path, monkeypatch):
    """So that it takes the memory of a few parts, and reads little of them."""
    store = EvidenceStore(str(tmp_path))
    for n in range(30):
        store.commit(KEY, rows((f"r{n}", 1)))
    asked, held = [], []
    real = store.read_part

    def read_part(name, columns=None, records=None):
        asked.append(columns)
        return real(name, columns, records)

    monkeypatch.setattr(store, "read_part", read_part)
    for _ in store.parts(KEY, []):
        held.append(len(asked))
    assert held[0] <= 8
    assert len(held) == 30
    assert asked == [["record_id", "neighbor"]] * 30


# ------------------------------------------------------------- promise 4: whole or not


def test_leftover_of_a_killed_writer_is_ignored(tmp_path):
    store = EvidenceStore(str(tmp_path))
    store.commit(KEY, rows(("a", 1)))
    folder = tmp_path / KEY.folder
    (folder / f"{TEMPORARY_PREFIX}1234").write_bytes(b"half a parq")
    (folder / f"{TEMPORARY_PREFIX}1234.parquet").write_bytes(b"half a parq")
    assert answered(store) == {("a", 1)}


def test_writer_killed_before_its_rename_can_write_again(tmp_path, monkeypatch):
    store = EvidenceStore(str(tmp_path))
    store.commit(KEY, rows(("a", 1)))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            store.commit(KEY, rows(("b", 1)))
    assert answered(store) == {("a", 1)}
    store.commit(KEY, rows(("b", 1)))
    assert answered(store) == {("a", 1), ("b", 1)}


def truncated(content):
    return content[: len(content) // 2]


def empty(_):
    return b""


def overwritten(content):
    middle = len(content) // 4
    return content[:middle] + b"\xff" * 40 + content[middle + 40 :]


@pytest.mark.parametrize("damage", [truncated, empty])
def test_damaged_file_is_named_with_what_to_do(store, damage):
    store.commit(KEY, rows(("a", 1)))
    (part,) = parts(store)
    name = f"{KEY.folder}/{part}"
    store.folder.write(name, damage(store.folder.read(name)))
    with pytest.raises(RaymiaError, match=rf"{part}: damaged evidence file .*delete it"):
        store.read(KEY)


def test_damaged_pages_are_named_too(tmp_path):
    store = EvidenceStore(str(tmp_path))
    table = rows(*((f"record {i}", 1) for i in range(2_000)))
    store.commit(KEY, table)
    (part,) = parts(store)
    name = f"{KEY.folder}/{part}"
    store.folder.write(name, overwritten(store.folder.read(name)))
    with pytest.raises(RaymiaError, match="damaged evidence file"):
        store.read(KEY)


def test_deleting_a_part_loses_only_its_rows(tmp_path):
    store = EvidenceStore(str(tmp_path))
    store.commit(KEY, rows(("a", 1)))
    first = parts(store)
    store.commit(KEY, rows(("b", 1)))
    (tmp_path / KEY.folder / first[0]).unlink()
    assert answered(store) == {("b", 1)}


# ------------------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"version": 2}, {"neighbors": "other"}, {"extra": None}]
)
def test_key_changes_with_every_part(change):
    assert EvidenceKey(KEY.kind, {**KEY.parts, **change}).hash != KEY.hash


def test_key_changes_with_its_kind():
    assert EvidenceKey("text.tokens", KEY.parts).hash != KEY.hash


def test_key_does_not_depend_on_the_order_of_its_parts():
    assert EvidenceKey(KEY.kind, dict(reversed(KEY.parts.items()))).hash == KEY.hash


def test_key_tells_types_apart():
    one, text = (EvidenceKey("k", {"seed": seed}).hash for seed in (1, "1"))
    assert one != text


# ------------------------------------------------------------------- prepared models


def prepared(tmp_path, facts, weights="w"):
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    (folder / "facts.json").write_text(json.dumps(facts))
    (folder / "model.safetensors").write_text(weights)
    return folder


def test_prepared_model_is_found_with_its_facts(store, tmp_path):
    assert store.prepared_facts("k") is None
    store.commit_prepared("k", prepared(tmp_path, {"texts": 3}))
    assert store.prepared_facts("k") == {"texts": 3}
    assert (store.prepared_path("k") / "model.safetensors").read_text() == "w"
    assert store.prepared_facts("other") is None


def test_half_copied_prepared_model_is_not_found(tmp_path):
    store = EvidenceStore(str(tmp_path / "store"))
    (tmp_path / "store" / "prepared" / f"{TEMPORARY_PREFIX}1").mkdir(parents=True)
    (tmp_path / "store" / "prepared" / "k").mkdir()
    (tmp_path / "store" / "prepared" / "k" / "model.safetensors").write_text("w")
    assert store.prepared_facts("k") is None


def test_parts_are_plain_parquet(tmp_path):
    """Other tools read them as they are."""
    store = EvidenceStore(str(tmp_path))
    store.commit(KEY, rows(("a", 1)))
    (path,) = (tmp_path / KEY.folder).glob("*.parquet")
    assert pq.read_table(path).equals(rows(("a", 1)))
