"""Answers are committed by another thread while a model is asked what comes next."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raymia.engine import stage as stage_module
from raymia.engine.board import Counts
from raymia.engine.stage import (
    FAILED,
    RECORD_COLUMNS,
    PoolConfig,
    Task,
    Worker,
    items_to_ask,
    todo_column,
)
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.models.causal.reading import PlainReader
from raymia.models.causal.readings import READ, Readings
from raymia.models.watch import Unchanged, not_watched
from raymia.questions.base import RECORD, Item, Question
from raymia.questions.text import SUM_SCHEMA
from raymia.util.errors import RaymiaError

FIRST, SECOND = (EvidenceKey("text.neighbors", {"model": name}) for name in ("m", "n"))
PREPARED: list[tuple[str, str]] = []
"""Records that a question was prepared for, each with the thread's name."""
SOON = 20.0
"""Seconds after which a test that waits has failed."""


@dataclass(frozen=True)
class Sums(Question):
    """A sum for each text; the model is told which records it is asked about."""

    name = "sums"
    kind = "text.neighbors"
    version = 1
    schema = SUM_SCHEMA

    def prepare(self, model: Any, items: Sequence[Item]) -> None:
        assert callable(model)
        PREPARED.extend((item.record_id, threading.current_thread().name) for item in items)
        if PREPARED[-1][0] == "bad":
            raise ValueError("it comes again where the question is put")

    def ask(self, model: Any, items: Sequence[Item]) -> pa.Table:
        model([item.record_id for item in items])
        rows = [
            {"record_id": i.record_id, "neighbor": i.neighbor, "log_prob_sum": -1.0,
             "token_count": 3}
            for i in items
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=SUM_SCHEMA)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> Any:
        raise NotImplementedError


class Reading:
    """A model that keeps what it read."""

    def __init__(self) -> None:
        self.readings = Readings(PlainReader(None))

    def __call__(self, records: list[str]) -> None:
        pass


def block(record: str) -> pa.Table:
    """One record that both keys lack."""
    todo = pa.array([[RECORD]], pa.list_(pa.int16()))
    columns = {"record_id": [record], "payload": ["text"], "neighbor": pa.array([[]], todo.type),
               "neighbor_payload": pa.array([[]], pa.list_(pa.string())),
               **{todo_column(key): todo for key in (FIRST, SECOND)}}  # fmt: skip
    return pa.table(columns).append_column(FAILED, pa.array([[]], FAILED.type))


@dataclass
class Far:
    """A store whose commits end when they may, as those of one that is far away do."""

    fails_on: str = ""
    begun: threading.Event = field(default_factory=threading.Event)
    may_end: threading.Event = field(default_factory=threading.Event)
    committed: list[tuple[str, str]] = field(default_factory=list)

    def commit(self, key: EvidenceKey, table: pa.Table) -> None:
        self.begun.set()
        assert self.may_end.wait(SOON)
        (record,) = table["record_id"].to_pylist()
        if record == self.fails_on:
            raise RaymiaError("the bucket is gone")
        self.committed.append((key.parts["model"], record))


class Named(str):
    """What stands for a loader here: the name of its model, which is no files."""

    def watch(self) -> Unchanged:
        return not_watched


@dataclass
class Made:
    store: Far = field(default_factory=Far)
    board: Counts = field(default_factory=Counts)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def worker(self, key: EvidenceKey, *later: EvidenceKey) -> Worker:
        """One that notes whom it is asked about, and commits to the store that is far away."""
        name = key.parts["model"]
        passes_on = (*RECORD_COLUMNS, FAILED.name, *(todo_column(one) for one in later))
        task = Task(name, Named(name), (("sums", Sums(), key),))  # type: ignore[arg-type]
        return Worker(PoolConfig(name, (task,), "unused", passes_on), self.board, name)

    def load(self, loaders: Sequence[str]) -> Any:
        (name,) = loaders
        return lambda _: lambda records: self.asked.extend((name, record) for record in records)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    PREPARED.clear()
    found = Made()
    monkeypatch.setattr(stage_module, "EvidenceStore", lambda _: found.store)
    monkeypatch.setattr(stage_module, "load_together", found.load)
    yield found
    found.store.may_end.set()


def records(passed: pa.Table) -> list[str]:
    return list(passed["record_id"].to_pylist())


def test_a_model_is_asked_about_the_next_block_while_the_store_takes_the_one_before(
    made: Made,
) -> None:
    worker = made.worker(FIRST)
    first = worker.ask(block("a"))
    assert made.store.begun.wait(SOON)
    second = worker.ask(block("b"))
    assert made.asked == [("m", "a"), ("m", "b")]
    assert made.store.committed == []
    made.store.may_end.set()
    assert [records(passed()) for passed in (first, second)] == [["a"], ["b"]]
    assert made.store.committed == [("m", "a"), ("m", "b")]


def test_a_block_is_passed_on_and_counted_only_when_its_answers_are_stored(made: Made) -> None:
    passed = made.worker(FIRST).ask(block("a"))
    assert made.store.begun.wait(SOON)
    with ThreadPoolExecutor(1) as whoever_comes_next:
        given = whoever_comes_next.submit(passed)
        assert not given.done()
        assert "m" not in made.board.lines
        made.store.may_end.set()
        assert records(given.result(SOON)) == ["a"]
    assert made.board.lines["m"].done == 1


def test_pools_in_one_process_are_asked_about_each_block_once_and_in_turn(made: Made) -> None:
    """The second is asked about what the first has stored, one block beside the one that is being
    prepared."""
    made.store.may_end.set()
    blocks = made.worker(FIRST, SECOND).pass_on(block(name) for name in "abcd")
    assert [records(one)[0] for one in made.worker(SECOND).pass_on(blocks)] == list("abcd")
    assert made.asked == [
        ("m", "a"), ("m", "b"), ("m", "c"), ("n", "a"), ("m", "d"), ("n", "b"), ("n", "c"),
        ("n", "d"),
    ]  # fmt: skip
    assert sorted(made.store.committed) == sorted(made.asked)
    assert {name: line.done for name, line in made.board.lines.items()} == {"m": 4, "n": 4}


def test_an_error_of_the_store_is_raised_for_its_block_and_nothing_is_stored_after_it(
    made: Made,
) -> None:
    made.store.fails_on = "b"
    made.store.may_end.set()
    worker = made.worker(FIRST)
    first, second, third = (worker.ask(block(name)) for name in "abc")
    assert records(first()) == ["a"]
    for passed in (second, third):
        with pytest.raises(RaymiaError, match="the bucket is gone"):
            passed()
    assert made.store.committed == [("m", "a")]
    assert made.board.lines["m"].done == 1


def test_what_was_answered_is_stored_when_a_worker_is_closed(made: Made) -> None:
    worker = made.worker(FIRST)
    worker.ask(block("a"))
    made.store.may_end.set()
    worker.close()
    assert made.store.committed == [("m", "a")]


def test_blocks_are_prepared_in_another_thread_once_the_model_was_asked(made: Made) -> None:
    """The second may come too early or not. What goes wrong there is left to whoever asks."""
    made.store.may_end.set()
    names = ["a", "b", "c", "bad"]
    passed = made.worker(FIRST).pass_on(block(name) for name in names)
    assert [records(one)[0] for one in passed] == names
    assert [record for record, _ in PREPARED if record != "b"] == ["c", "bad"]
    assert all(thread.startswith("prepares") for _, thread in PREPARED)


@pytest.mark.parametrize("reading", [None, "alike"])
def test_of_models_that_read_alike_one_is_prepared_for(
    made: Made, reading: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = made.worker(FIRST)
    (task,) = worker.config.tasks
    task = replace(task, reading=reading)
    worker.config = replace(worker.config, tasks=(task, task))
    made.store.may_end.set()
    monkeypatch.setattr(stage_module, "load_together", lambda _: lambda _: Reading())
    worker.ask(block("a"))()
    worker.prepare(block("b"))
    assert [record for record, _ in PREPARED] == ["b"] * (1 if reading else 2)


def test_what_a_block_lacks_is_laid_out_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the model, where a block is prepared ahead: a device waits for it otherwise."""
    laid_out = []

    def counted(block: pa.Table, question: Question, key: EvidenceKey) -> list[Item]:
        laid_out.append((block["record_id"][0].as_py(), threading.current_thread().name[:8]))
        return items_to_ask(block, question, key)

    monkeypatch.setattr(stage_module, "items_to_ask", counted)
    made.store.may_end.set()
    worker = made.worker(FIRST)
    worker.load()
    names = ["a", "b", "c"]
    assert [records(one)[0] for one in worker.pass_on(block(name) for name in names)] == names
    assert [record for record, _ in laid_out] == names
    assert {thread for _, thread in laid_out} == {"prepares"}
    assert made.asked == [("m", name) for name in names]


@pytest.mark.parametrize("reading", [None, "alike"])
def test_what_was_read_of_a_block_is_kept_until_it_is_passed_on(
    made: Made, reading: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a checkpoint from outside that does not say how its model reads."""
    worker, model = made.worker(FIRST), Reading()
    (task,) = worker.config.tasks
    worker.config = replace(worker.config, tasks=(replace(task, reading=reading),))
    monkeypatch.setattr(stage_module, "load_together", lambda _: lambda _: model)
    worker.load()
    made.store.may_end.set()
    model.readings.keep(["text"], pa.array([{"ids": [1], "truncated": False}], READ))
    passed = worker.ask(block("a"))
    assert [one.ids for one in model.readings.read(["text"])] == [[1]]
    passed()
    with pytest.raises(TypeError):  # of a reader that has no tokenizer
        model.readings.read(["text"])


@pytest.mark.parametrize("before", [None, "this worker", "an earlier run"])
def test_a_block_that_fails_as_a_whole_is_the_models_fault_only_if_it_never_answered(
    made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str | None
) -> None:
    store = EvidenceStore(str(tmp_path))
    monkeypatch.setattr(stage_module, "EvidenceStore", lambda _: store)

    def fails(records: list[str]) -> None:
        if records[0].startswith("bad"):
            raise IndexError("index out of range")

    monkeypatch.setattr(stage_module, "load_together", lambda _: lambda _: fails)
    bad = pa.concat_tables(block(f"bad{n}") for n in range(3))
    worker = made.worker(FIRST)
    if before is None:
        with pytest.raises(IndexError, match="index out of range"):
            worker.ask(bad)
        assert store.read(FIRST) is None
        return
    worker.ask(block("good"))
    if before == "an earlier run":
        worker.close()
        worker = made.worker(FIRST)
    worker.ask(bad)()
    errors = store.read(FIRST, ["error"])["error"].drop_null().to_pylist()
    assert errors == ["IndexError; came: index out of range"] * 3
