"""Looking after a store: nothing is lost, nothing needed is deleted, and what is wrong is named."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymia.evidence import upkeep
from raymia.evidence.store import PART, EvidenceKey, EvidenceStore, row_keys
from raymia.evidence.upkeep import (
    BEING_WRITTEN,
    compact,
    delete,
    find_waste,
    key_facts,
    merge_alike,
    stored_things,
    verify,
)
from raymia.questions.text import SUM_SCHEMA
from raymia.storage.moves import TEMPORARY_PREFIX

KEY = EvidenceKey("text.neighbors", {"model": "m", "version": 1, "neighbors": "n"})
OTHER = EvidenceKey("text.neighbors", {"model": "other", "version": 1, "neighbors": "n"})


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    local = request.param == "local"
    return EvidenceStore(str(tmp_path / "store") if local else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def local(tmp_path):
    return EvidenceStore(str(tmp_path / "store"))


def rows(*records, value=-1.0):
    return pa.Table.from_pylist(
        [{"record_id": r, "neighbor": 1, "log_prob_sum": value, "token_count": 3} for r in records],
        schema=SUM_SCHEMA,
    )


def parts(store, key=KEY):
    return store.folder.names(key.folder, PART)


def answered(store, key=KEY):
    table = store.read(key, columns=[])
    return set() if table is None else set(row_keys(table))


def age(path, seconds):
    for place in (path, *path.rglob("*")) if path.is_dir() else (path,):
        os.utime(place, (time.time() - seconds,) * 2)


OLD = BEING_WRITTEN.total_seconds() + 60


def problems(store):
    return [problem for thing in stored_things(store) for problem in verify(store, thing)]


# ------------------------------------------------------------------------- compaction


def test_many_parts_become_one_that_holds_the_same(store):
    for n in range(70):
        store.commit(KEY, rows(f"r{n}", value=-float(n)))
    before = store.read(KEY).sort_by("record_id")
    assert compact(store, KEY.folder) == 69
    assert len(parts(store)) == 1
    assert store.read(KEY).sort_by("record_id").equals(before)
    assert problems(store) == []


def test_few_parts_are_left_alone(store):
    for n in range(5):
        store.commit(KEY, rows(f"r{n}"))
    assert compact(store, KEY.folder, max_parts=5) == 0
    assert len(parts(store)) == 5


def test_parts_are_merged_up_to_a_size(local):
    """So merging a key needs the memory of a few parts, not of the key."""
    for n in range(40):
        local.commit(KEY, rows(f"r{n}"))
    (thing,) = stored_things(local)
    assert compact(local, KEY.folder, 4, merged=10 * thing.parts[0].size) == 36
    assert len(parts(local)) == 4
    assert len(answered(local)) == 40


@pytest.mark.long
def test_parts_of_one_size_are_merged_only_with_as_many_others_of_it(local):
    """So a row is written a few times, and not with every merge: 200 parts in four of eight."""
    written, sizes = [], []
    real = local.write_part

    def write_part(folder, table, is_proven=True):
        written.append(table.num_rows)
        return real(folder, table, is_proven)

    local.write_part = write_part
    for n in range(400):
        local.commit(KEY, rows(*(f"r{n}-{m}" for m in range(100))))
        merge_alike(local, KEY.folder, max_alike=8)
        sizes.append(len(parts(local)))
    committed, rewritten = 40_000, sum(written) - 40_000
    assert max(sizes) <= 3 * 8
    assert rewritten <= 4 * committed
    assert len(answered(local)) == committed
    assert problems(local) == []


def test_parts_that_are_large_enough_are_left_as_they_are(local):
    for n in range(20):
        local.commit(KEY, rows(f"r{n}"))
    size = max(part.size for part in stored_things(local)[0].parts)
    assert merge_alike(local, KEY.folder, max_alike=8, merged=size) == 0
    assert len(parts(local)) == 20


def test_a_kill_between_merging_and_deleting_loses_and_repeats_nothing(local, monkeypatch):
    for n in range(8):
        local.commit(KEY, rows(f"r{n}"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local.folder, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(local, KEY.folder, max_parts=4)
    assert len(parts(local)) == 9
    assert local.read(KEY).num_rows == 8
    compact(local, KEY.folder, max_parts=4)
    assert len(parts(local)) == 1
    assert local.read(KEY).num_rows == 8


def test_a_part_that_was_merged_since_it_was_listed_is_read_in_what_it_became(local, monkeypatch):
    for n in range(8):
        local.commit(KEY, rows(f"r{n}"))
    real, merged, one_at_a_time = local.folder.open, [], threading.Lock()

    def opened(name):
        with one_at_a_time:
            if not merged:
                merged.append(compact(EvidenceStore(local.folder.url), KEY.folder, max_parts=4))
        return real(name)

    monkeypatch.setattr(local.folder, "open", opened)
    assert len(answered(local)) == 8
    assert merged == [7]


def test_a_listing_that_missed_the_parts_and_what_they_became_is_made_up_for(local, monkeypatch):
    for n in range(8):
        local.commit(KEY, rows(f"r{n}"))
    real, listed = local.folder.names, []

    def names(folder, suffix):
        found = real(folder, suffix)
        listed.append(found)
        return found[:3] if len(listed) == 1 else found

    monkeypatch.setattr(local.folder, "names", names)
    assert len(answered(local)) == 8


WRITER = """
import random, sys
sys.path[:0] = {paths!r}
from test_upkeep import KEY, rows
from raymia.evidence.store import EvidenceStore
from raymia.evidence.upkeep import compact
store, seed = EvidenceStore(sys.argv[1]), int(sys.argv[2])
order = list(range(120))
random.Random(seed).shuffle(order)
for turn, n in enumerate(order):
    store.commit(KEY, rows(f"r{{n}}", value=-float(n)))
    if turn % 20 == 19:
        compact(store, KEY.folder, max_parts=8)
"""


@pytest.mark.long
def test_processes_that_write_merge_and_read_one_store_at_once_lose_nothing(local):
    paths = [str(Path(__file__).parent), *sys.path]
    commands = [[sys.executable, "-c", WRITER.format(paths=paths), local.folder.url, str(seed)]
                for seed in (1, 2)]  # fmt: skip
    writers = [subprocess.Popen(command) for command in commands]
    seen: set[tuple[str, int]] = set()
    while any(writer.poll() is None for writer in writers):
        now = answered(local)
        assert seen <= now, "an answer that was there is gone"
        seen = now
        time.sleep(random.random() / 20)
    assert [writer.returncode for writer in writers] == [0, 0]
    table = local.read(KEY)
    assert {row["record_id"]: row["log_prob_sum"] for row in table.to_pylist()} == {
        f"r{n}": -float(n) for n in range(120)
    }
    assert table.num_rows == 120
    assert len(parts(local)) < 40
    assert problems(local) == []


# --------------------------------------------------------------------------- ls, verify


def test_a_key_says_what_it_is_of_and_how_much_it_holds(store):
    store.commit(KEY, rows("a", "b"))
    store.commit(KEY, rows("c"))
    (thing,) = stored_things(store)
    facts = key_facts(store, thing)
    assert (facts.kind, facts.model, facts.question, facts.rows) == (
        "text.neighbors", "m", 'neighbors="n"', 3,
    )  # fmt: skip
    assert (thing.folder, len(thing.parts)) == (KEY.folder, 2)
    assert not thing.is_older_than(BEING_WRITTEN, datetime.now(UTC))


def test_a_sound_store_has_no_problem(store):
    store.commit(KEY, rows("a"))
    assert problems(store) == []


def test_what_is_wrong_with_evidence_is_named(local):
    local.commit(KEY, rows("a"))
    local.commit(OTHER, rows("a"))
    folder, other = (Path(local.folder.path(key.folder)) for key in (KEY, OTHER))
    (part,) = folder.glob(f"*{PART}")
    (folder / f"{'0' * 32}{PART}").write_bytes(part.read_bytes())
    (folder / f"{'1' * 32}{PART}").write_bytes(part.read_bytes()[:-9])
    pq.write_table(rows("b").drop(["record_id"]), folder / f"{'2' * 32}{PART}")
    local.commit(KEY, rows("b").drop(["token_count"]))
    unheard = EvidenceKey("text.unheard", {"model": "m"})
    local.commit(unheard, rows("a"))
    local.commit(unheard, rows("b").drop(["token_count"]))
    (other / "key.json").write_text(json.dumps({"kind": "text.neighbors", "model": "x"}))
    (folder / f"{TEMPORARY_PREFIX}x").write_bytes(b"half")
    age(folder / f"{TEMPORARY_PREFIX}x", OLD)
    (folder / f"{TEMPORARY_PREFIX}now").write_bytes(b"half")
    found = "\n".join(problems(local))
    for says in (
        f"{'0' * 32}{PART}: holds other rows than it is named by",
        f"{'1' * 32}{PART}: damaged evidence file",
        f"{'2' * 32}{PART}: damaged evidence file (it has no column record_id)",
        "damaged evidence file (it has no column token_count)",
        "has the columns record_id, neighbor, log_prob_sum",
        f"{OTHER.folder}/key.json: does not give the key",
        f"{TEMPORARY_PREFIX}x: left by a writer that was killed 24 h ago",
    ):
        assert says in found, found
    assert len(problems(local)) == 7


def test_a_prepared_model_that_is_not_whole_is_named(local, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "facts.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    local.commit_prepared("k", made)
    (Path(local.folder.path("prepared/k")) / "model.safetensors").write_bytes(b"\x08")
    unfinished = Path(local.folder.path("prepared/other"))
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"")
    age(unfinished, OLD)
    found = problems(local)
    assert found[0].startswith("prepared/k/model.safetensors: not as it was made")
    assert found[1:] == ["prepared/other: has no facts.json, so it was never finished"]


# -------------------------------------------------------------------------------- gc


def test_only_what_no_audit_needs_is_waste_and_only_when_it_is_old(local):
    for key in (KEY, OTHER):
        local.commit(key, rows("a"))
    (waste,) = find_waste(local, {KEY.folder})
    assert waste.thing.folder == OTHER.folder
    assert waste.kept_because == "it was written 0 min ago, perhaps by an audit that is running"
    age(Path(local.folder.path(OTHER.folder)), OLD)
    (waste,) = find_waste(local, {KEY.folder})
    assert waste.kept_because is None
    delete(local, waste)
    assert local.read(OTHER) is None
    assert not Path(local.folder.path(OTHER.folder)).exists()
    assert local.read(KEY).num_rows == 1


def test_what_is_being_written_is_never_waste_and_what_a_killed_writer_left_is(local):
    local.commit(KEY, rows("a"))
    folder = Path(local.folder.path(KEY.folder))
    for name in ("old", "new"):
        (folder / f"{TEMPORARY_PREFIX}{name}").write_bytes(b"half")
        staged = Path(local.folder.path(f"prepared/{TEMPORARY_PREFIX}{name}"))
        staged.mkdir(parents=True)
        (staged / "model.safetensors").write_bytes(b"half")
    age(folder / f"{TEMPORARY_PREFIX}old", OLD)
    age(Path(local.folder.path(f"prepared/{TEMPORARY_PREFIX}old")), OLD)
    wastes = list(find_waste(local, None))
    assert {file.name for waste in wastes for file in waste.thing.incomplete} == {
        f"{KEY.folder}/{TEMPORARY_PREFIX}old", f"prepared/{TEMPORARY_PREFIX}old/model.safetensors",
    }  # fmt: skip
    for waste in wastes:
        delete(local, waste)
    left = {p.name for p in Path(local.folder.path("")).rglob(f"{TEMPORARY_PREFIX}*")}
    assert left == {f"{TEMPORARY_PREFIX}new"}
    assert local.read(KEY).num_rows == 1


def test_age_is_told_by_the_clock_that_files_are_dated_by(local, monkeypatch):
    """This machine's clock is days ahead of the store's, and somebody is writing there."""
    local.commit(KEY, rows("a"))
    (Path(local.folder.path(KEY.folder)) / f"{TEMPORARY_PREFIX}new").write_bytes(b"half")

    class Ahead(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + 3 * BEING_WRITTEN

    monkeypatch.setattr(upkeep, "datetime", Ahead)
    (thing,) = stored_things(local)
    assert not list(verify(local, thing))
    assert not list(find_waste(local, None))
    assert [waste.kept_because for waste in find_waste(local, set())] != [None]


def interrupted_work(store, key):
    with store.workplace(key) as place:
        (place / "state").write_bytes(b"half-way")
        raise KeyboardInterrupt


def test_a_killed_training_is_waste_when_it_is_old_and_nobody_goes_on_with_it(local):
    with pytest.raises(KeyboardInterrupt):
        interrupted_work(local, "abc")
    folder = Path(local.folder.path("training/abc"))
    local.commit(KEY, rows("a"))
    assert not list(find_waste(local, None))
    age(folder, OLD)
    assert not list(find_waste(local, {KEY.folder, "prepared/abc"})), "an audit would go on with it"
    with local.workplace("abc") as place:
        assert (place / "state").read_bytes() == b"half-way"
        age(folder, OLD)
        assert not list(find_waste(local, None)), "it is being gone on with"
        folder.rename(folder.with_name("def"))
    age(folder.with_name("def"), OLD)
    (waste,) = find_waste(local, None)
    assert (waste.thing.folder, waste.kept_because) == ("training/def", None)
    delete(local, waste)
    assert not folder.with_name("def").exists()


def test_one_process_at_a_time_is_in_a_workplace(local):
    order = []

    def second():
        with local.workplace("abc"):
            order.append("second")

    with local.workplace("abc"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert not Path(local.folder.path("training/abc")).exists()
