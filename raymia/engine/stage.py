"""One actor of a pool: holds models, answers probes about blocks of records, commits the answers.

A block is an Arrow table, one row per record::

    record_id, payload          the record
    neighbor, neighbor_payload  lists: the neighbors that are known so far
    todo:<key>                  list: which indices a probe still has to be asked about

An actor commits the answers of a block before it passes the block on, so nothing that was answered
is asked again, wherever the run is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from raymia.evidence.store import EvidenceKey, EvidenceStore
from raymia.models.loaders import Loader, load_together
from raymia.probes.base import RECORD, Item, Probe

RECORD_COLUMNS = ["record_id", "payload", "neighbor", "neighbor_payload"]


def todo_column(key: EvidenceKey) -> str:
    return f"todo:{key.hash}"


@dataclass(frozen=True)
class Task:
    """What an actor asks of one model.

    Attributes
    ----------
    name : of the stage, shown in progress and reports, as ``target:epoch-3``.
    loader : how to load the model.
    probes : the questions: their names, and the keys that their answers are stored under.
    """

    name: str
    loader: Loader
    probes: tuple[tuple[str, Probe, EvidenceKey], ...]


@dataclass(frozen=True)
class PoolConfig:
    """What an actor is made from; small, since Ray keeps it to restart the actor.

    Attributes
    ----------
    tasks : of models that share their base; one alone need not.
    store_url : the evidence store.
    threads : torch threads; None leaves them as they are.
    passes_on : columns that later pools need.
    """

    tasks: tuple[Task, ...]
    store_url: str
    threads: int | None
    passes_on: tuple[str, ...]


class PoolActor:
    """The worker of a pool, called by Ray Data with one block at a time."""

    def __init__(self, config: PoolConfig, board: Any) -> None:
        self.config = config
        self.board = board
        self.store = EvidenceStore(config.store_url)
        # Loading in the background makes a failure to load an error of the first block, which Ray
        # reports with its cause; an error in a constructor it does not.
        self._loading: Future[Callable[[int], Any]] = ThreadPoolExecutor(1).submit(self._load)

    def _load(self) -> Callable[[int], Any]:
        import torch

        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        return load_together([task.loader for task in self.config.tasks])

    def __call__(self, block: pa.Table) -> pa.Table:
        import torch

        ready = self._loading.result()
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        for number, task in enumerate(self.config.tasks):
            model = ready(number)
            for question, probe, key in task.probes:
                block = self._ask(task.name, model, question, probe, key, block)
        return block.select(list(self.config.passes_on))

    def _ask(
        self,
        name: str,
        model: Any,
        question: str,
        probe: Probe,
        key: EvidenceKey,
        block: pa.Table,
    ) -> pa.Table:
        """Ask, commit, report; the block comes back with the neighbors that were made."""
        items = items_to_ask(block, probe, key)
        if not items:
            return block
        started = time.monotonic()
        answers = probe.ask(model, items)
        self.store.commit(key, answers)
        failed = len(items) - answers["error"].null_count
        seconds = time.monotonic() - started
        self.board.add.remote(name, question, len(items), failed, seconds)
        return with_neighbors(block, answers) if probe.makes_neighbors else block


def items_to_ask(block: pa.Table, probe: Probe, key: EvidenceKey) -> list[Item]:
    """The subjects of a block that a probe has not been asked about."""
    items = []
    names = (*RECORD_COLUMNS, todo_column(key))
    for record, payload, indices, payloads, todo in zip(
        *(block[name].to_pylist() for name in names), strict=True
    ):
        known = dict(zip(indices, payloads, strict=True))
        for index in todo:
            own = index == RECORD or probe.subject == "record"
            items.append(Item(record, index, payload if own else known[index]))
    return items


def with_neighbors(block: pa.Table, made: pa.Table) -> pa.Table:
    """Add neighbors that were just made to the lists of their records."""
    names = ("record_id", "neighbor", "payload")
    new: dict[str, list[tuple[int, Any]]] = {}
    for record, index, payload in zip(*(made[n].to_pylist() for n in names), strict=True):
        new.setdefault(record, []).append((index, payload))
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
