"""One worker of a pool: holds models, asks them about blocks of records, commits the answers.

A block is an Arrow table, one row per record::

    record_id, payload          the record
    neighbor, neighbor_payload  lists: the neighbors that are known so far
    todo:<key>                  list: which indices a question still has to be asked about
    failed                      list: the targets that failed on the way here, and why; the first
                                row says it for all, since a block travels as a whole
    read:<reading>              lists: what was read of them; see raymia.engine.readings

A worker commits the answers of a block before it passes the block on, and asks about the next block
meanwhile. So nothing waits for the store, and where the run is killed, no more than these two are
asked again.

Answers are committed only if no file of the model was written to since before it was loaded.

What goes wrong with a model that one target alone has a part in is that target's failure: it is
written into the block, the target is asked no more, and the block goes on to the others. What goes
wrong with a model that targets share, or with the store, is raised, and ends the stream.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from raymia.engine import readings
from raymia.engine.board import Board
from raymia.engine.commits import Commits
from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.models.loaders import Loader, load_together
from raymia.models.source import bring
from raymia.models.watch import Unchanged
from raymia.plan.stages import number_in_block
from raymia.questions.base import RECORD, Item, Question
from raymia.questions.put import put
from raymia.storage.downloads import Origin
from raymia.util.errors import RaymiaError, first_line
from raymia.util.once import Once

BLOCKS_AT_ONCE = 2
"""That a worker holds: one that it asks about, and one whose answers are being committed."""
MAX_DEATHS = 3
"""How often in a row an actor's process may die before it has answered about a block; Ray would
start it for ever."""
Passed = Callable[[], pa.Table]
RECORD_COLUMNS = ["record_id", "payload", "neighbor", "neighbor_payload"]
FAILED = pa.field("failed", pa.list_(pa.struct([("target", pa.string()), ("why", pa.string())])))


def todo_column(key: EvidenceKey) -> str:
    return f"todo:{key.hash}"


@dataclass(frozen=True)
class Task:
    """What a worker asks of one model.

    Attributes
    ----------
    name : of the stage, shown in progress and reports, as ``target:epoch-3``.
    loader : how to load the model.
    questions : each with its label, and the key that its answers are stored under.
    target : the one target that the model matters to; None for a model that targets share.
    reading : see :attr:`raymia.models.checkpoint.AnyCheckpoint.reading`.
    """

    name: str
    loader: Loader
    questions: tuple[tuple[str, Question, EvidenceKey], ...]
    target: str | None = None
    reading: str | None = None


@dataclass(frozen=True)
class PoolConfig:
    """What a worker is made from; small, since Ray keeps it to start the worker again.

    Attributes
    ----------
    key : what the board calls the pool.
    tasks : of models that share their base; one alone need not.
    store_url : the evidence store.
    passes_on : columns that later pools need.
    origins : see :func:`raymia.models.source.bring`.
    """

    key: str
    tasks: tuple[Task, ...]
    store_url: str
    passes_on: tuple[str, ...]
    origins: Mapping[str, Origin] = field(default_factory=dict)


class Worker:
    """Holds the models of a pool and asks them; it is to be asked from one thread alone, since
    OpenMP keeps threads of its own for each that computes, and where they are more than the cores
    it no longer lets them spin while they wait.

    Blocks are prepared in other threads, as far as no device is needed.

    Parameters
    ----------
    name : what the board knows the worker by, also where its process is started again.
    """

    def __init__(self, config: PoolConfig, board: Board, name: str) -> None:
        self.config = config
        self._board = board
        self._name = name
        self._commits = Commits(EvidenceStore(config.store_url))
        self._failed: dict[str, str] = {}
        self._loaded: Future[Callable[[int], Any]] = Future()
        self._unchanged: list[Unchanged] = []
        """Of each task's files, from before they were loaded on."""
        self._models: dict[int, Any] = {}
        """That are loaded, by the numbers of their tasks; of several, those that were asked."""
        self._has_answered = False
        self._ahead: dict[int, tuple[pa.Table, dict[str, list[Item]]]] = {}
        """Blocks that were prepared and are still to be asked about, each with what questions are
        to be asked about, by their keys, as far as it was known. A block that is held here shares
        its id with no other."""
        board.place(config.key)

    def load(self) -> None:
        """Load the models. An error is kept, and raised where a model is to be asked."""
        try:
            loaded = self._load()
            if len(self.config.tasks) == 1:
                self._models[0] = loaded(0)
            self._loaded.set_result(loaded)
        except Exception as error:
            self._loaded.set_exception(error)

    def _load(self) -> Callable[[int], Any]:
        died = self._board.begin_loading(self._name)
        if died >= MAX_DEATHS:
            raise RaymiaError(died_loading(self.config.tasks, died))
        bring(self.config.origins)
        loaders = [task.loader for task in self.config.tasks]
        self._unchanged = [loader.watch() for loader in loaders]
        return load_together(loaders)

    def _model(self, number: int) -> Any:
        if not self._loaded.done():
            self.load()
        return self._loaded.result()(number)

    def prepare(self, block: pa.Table) -> None:
        """Do what needs no device before the model is asked about a block: from another thread,
        while it is asked about others. Of models that read alike one is enough.

        Where models share a base, one that was not asked yet is left alone, since one of them is
        ready at a time.
        """
        for task, model in self._readers():
            _, ahead = self._ahead.setdefault(id(block), (block, {}))
            with suppress(Exception):  # it comes again, where the question is put
                if task.reading is not None:
                    readings.use(block, task.reading, model)
                for _, question, key in task.questions:
                    items = items_to_ask(block, question, key)
                    question.prepare(model, items)
                    ahead[key.hash] = items

    def pass_on(self, blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Ask what blocks lack; each is given to whoever comes next when the one after it has been
        asked about, and prepared while the one before it is."""
        before: Passed | None = None
        for block in self._prepared(blocks):
            passed = self.ask(block)
            if before is not None:
                yield before()
            before = passed
        if before is not None:
            yield before()

    def _prepared(self, blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        with ThreadPoolExecutor(1, "prepares") as thread:
            before: Future[pa.Table] | None = None
            for block in blocks:
                preparing = thread.submit(self._prepare, block)
                if before is not None:
                    yield before.result()
                before = preparing
            if before is not None:
                yield before.result()

    def _prepare(self, block: pa.Table) -> pa.Table:
        self.prepare(block)
        return block

    def ask(self, block: pa.Table) -> Passed:
        """Ask what a block lacks, and have the answers committed.

        Returns
        -------
        Gives the block to whoever comes next, once its answers are in the store; it may be called
        from any thread, and raises an error of the store.
        """
        if id(block) not in self._ahead:
            self.prepare(block)
        _, ahead = self._ahead.pop(id(block), (block, {}))
        failed, commits = failures_in(block), list[Future[None]]()
        for number, task in enumerate(self.config.tasks):
            why = failed.get(task.target or "", self._failed.get(task.target or ""))
            if why is None:
                try:
                    block = self._ask_all(number, task, block, ahead, commits)
                except _TargetError as error:
                    why = str(error)
                    self._board.fail(task.name, why)
            if why is not None:
                assert task.target is not None
                self._failed[task.target] = failed[task.target] = why
        if not self._has_answered:
            self._has_answered = True
            self._board.answered(self._name)
        asked = with_failed(block, failed)

        def passed() -> pa.Table:
            for commit in commits:
                commit.result()
            return self._take_along(asked).select(list(self.config.passes_on))

        return passed

    def _readers(self) -> list[tuple[Task, Any]]:
        """Tasks that have not failed, with their models; one of those that read alike."""
        found: dict[Any, tuple[Task, Any]] = {}
        for number, model in list(self._models.items()):
            task = self.config.tasks[number]
            if task.target not in self._failed:
                found.setdefault(task.reading or number, (task, model))
        return [*found.values()]

    def _take_along(self, block: pa.Table) -> pa.Table:
        """Write into a block what later pools need not read again, and keep it no longer."""
        models = {task.reading: model for task, model in self._readers()}
        for reading in dict.fromkeys(task.reading for task in self.config.tasks):
            if reading and readings.read_column(reading) in self.config.passes_on:
                block = readings.take_along(block, reading, models.get(reading))
        for _, model in self._readers():
            readings.forget(block, model)
        return block

    def close(self) -> None:
        """Wait until all that was answered is committed."""
        self._commits.close()

    def _ask_all(
        self,
        number: int,
        task: Task,
        block: pa.Table,
        ahead: Mapping[str, list[Item]],
        commits: list[Future[None]],
    ) -> pa.Table:
        """Ask, and have it committed and reported; the block comes back with the neighbors that
        were made."""
        model = None
        for label, question, key in task.questions:
            items = ahead.get(key.hash)
            if items is None:
                items = items_to_ask(block, question, key)
            if not items:
                continue
            try:
                model = self._model(number) if model is None else model
                started = time.monotonic()
                heard = partial(self._commits.has_answers, key)
                answers = put(question, model, items, heard)
                seconds = time.monotonic() - started
                self._unchanged[number]()
            except Exception as error:
                if task.target is None:
                    raise
                raise _TargetError(in_short(error)) from error
            self._models[number] = model
            failed = len(items) - answers["error"].null_count
            report = partial(self._board.add, task.name, label, len(items), failed, seconds)
            commits.append(self._commits.add(key, answers, report))
            if question.makes_neighbors:
                block = with_neighbors(block, answers, question)
        return block


def died_loading(tasks: Sequence[Task], times: int) -> str:
    """Say of an actor whose process is killed again and again why that may be."""
    found = [task.loader.memory(Once()) for task in tasks]
    most = max((memory.total for memory in found if memory is not None), default=None)
    takes = "" if most is None else f"takes about {most / 2**30:.2f} GiB and "
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
    return (
        f"{tasks[0].name}{more}: the process of an actor died {times} times in a row while it "
        "loaded the model or was asked about one block of records, as one does that is killed for "
        f"lack of memory; it {takes}shares the {there:.0f} GiB of its machine with whatever else "
        "is there. Give the pool larger machines or fewer actors on each, or the model a smaller "
        "dtype or quantization; where very long records take the memory, smaller max_tokens"
    )


class _TargetError(Exception):
    """What went wrong with a model that one target alone has a part in."""


def in_short(error: BaseException) -> str:
    """An error on one line, or what a RaymiaError says."""
    text = str(error).strip()
    if isinstance(error, RaymiaError):
        return text
    return f"{type(error).__name__}: {first_line(error)}" if text else type(error).__name__


def failures_in(block: pa.Table) -> dict[str, str]:
    """Which targets have failed by the time of a block, and why."""
    entries = block[FAILED.name][0].as_py() if block.num_rows else []
    return {entry["target"]: entry["why"] for entry in entries}


def with_failed(block: pa.Table, failed: dict[str, str]) -> pa.Table:
    """Write into a block which targets have failed so far; in its first row, since thousands of
    targets times thousands of records would be most of the block."""
    entries = [{"target": target, "why": why} for target, why in failed.items()]
    rows = [entries, *[[]] * (block.num_rows - 1)] if block.num_rows else []
    column = pa.array(rows, type=FAILED.type)
    return block.set_column(block.schema.get_field_index(FAILED.name), FAILED, column)


def items_to_ask(block: pa.Table, question: Question, key: EvidenceKey) -> list[Item]:
    """The subjects of a block that a question has not been asked about."""
    items = []
    names = (*RECORD_COLUMNS, todo_column(key))
    for record, payload, indices, payloads, todo in zip(
        *(block[name].to_pylist() for name in names), strict=True
    ):
        known = dict(zip(indices, payloads, strict=True))
        for index in todo:
            own = index == RECORD or question.subject == "record"
            subject = payload if own else known[number_in_block(question, index)]
            items.append(Item(record, index, subject))
    return items


def with_neighbors(block: pa.Table, made: pa.Table, question: Question) -> pa.Table:
    """Add neighbors that were just made to the lists of their records."""
    names = ("record_id", "neighbor", "payload")
    new: dict[str, list[tuple[int, Any]]] = {}
    for record, index, payload in zip(*(made[n].to_pylist() for n in names), strict=True):
        new.setdefault(record, []).append((number_in_block(question, index), payload))
    indices = block["neighbor"].to_pylist()
    payloads = block["neighbor_payload"].to_pylist()
    for row, record in enumerate(block["record_id"].to_pylist()):
        for index, payload in new.get(record, []):
            indices[row].append(index)
            payloads[row].append(payload)
    for name, values in (("neighbor", indices), ("neighbor_payload", payloads)):
        place = block.schema.get_field_index(name)
        kind = block.schema.field(name).type
        block = block.set_column(place, name, pa.array(values, type=kind))
    return block
