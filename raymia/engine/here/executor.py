"""The work of a run in this process, one step after another: for notebooks, debuggers and tests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from raymia.engine.board import Board, Counts, OnLines, drawn
from raymia.engine.here.stopping import ended_by_sigterm
from raymia.engine.here.stream import run_stream
from raymia.engine.prepare import MAX_THREADS, Making, reference_maker, training_threads
from raymia.engine.stage import in_short
from raymia.engine.stream import Stream
from raymia.evidence.store import EvidenceStore
from raymia.plan.blocks import BlockSizes
from raymia.scoring.evidence import TargetEvidence
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.sweep.evaluate import Setting
from raymia.sweep.proposals import Proposed
from raymia.sweep.work import STAGE, Case, Listed, Source, Terms, Trials, Worker
from raymia.util.errors import InputError, RaymiaError

if TYPE_CHECKING:
    from raymia.plan.planning import AuditPlan

Found = TypeVar("Found")


@contextmanager
def in_this_process(
    resources: ResourcesSpec, store_url: str, console: Console
) -> Iterator[LocalExecutor]:
    """Nothing is started; SIGTERM ends the program with its own code while the block runs."""
    with ended_by_sigterm():
        yield LocalExecutor(resources, store_url, console)


@dataclass(frozen=True)
class LocalExecutor:
    """See :class:`raymia.engine.base.Executor`."""

    resources: ResourcesSpec
    store_url: str
    console: Console

    def check(self, plan: AuditPlan) -> None:
        pools = {"reference": self.resources.reference} if _makes_references(plan) else {}
        for stage in (stage for stages in plan.streams for stage in stages if stage.to_ask):
            name = "paraphraser" if stage.role == "neighbors" else stage.role
            if stage.loader.checkpoint is not None:
                pools[name] = stage.pool
        _check_device(pools)

    @contextmanager
    def reporting(self, on_lines: OnLines | None = None) -> Iterator[Counts]:
        board = Counts()
        with drawn(board.snapshot, self.console, on_lines):
            yield board

    def make(
        self, wanted: Sequence[Making], pool: PoolSpec, board: Board
    ) -> dict[str, RaymiaError]:
        failed: dict[str, RaymiaError] = {}
        for making in wanted:
            function = reference_maker(making, pool, self.store_url, board)
            try:
                failed |= self.call([function], pool)[0]
            except RaymiaError as error:
                failed |= dict.fromkeys((recipe.key for _, recipe in making.recipes), error)
        return failed

    def ask(self, plan: AuditPlan, board: Board) -> dict[str, str]:
        """See :meth:`raymia.engine.base.Executor.ask`. The models of a stream are in memory at the
        same time, those on one base once; they are let go when the stream ends."""
        failed: dict[str, str] = {}
        records = plan.inputs.payloads
        sizes = BlockSizes(plan.inputs, plan.streams, EvidenceStore(self.store_url), board.snapshot)
        with _threads(_own_threads()):
            for number, stages in enumerate(plan.streams):
                with _own_errors():
                    failed |= run_stream(
                        Stream(number, stages),
                        records,
                        store_url=self.store_url,
                        block_records=partial(sizes.records, stages),
                        board=board,
                    )
                _let_go()
        return failed

    def call(self, functions: Sequence[Callable[[], Any]], pool: PoolSpec) -> list[Any]:
        _check_device({"": pool})
        threads = _own_threads() if pool.cpus is None else training_threads(pool)
        with _threads(threads), _own_errors():
            found = [function() for function in functions]
        _let_go()
        return found

    def workers(self, board: Board, room: str) -> Steps:
        del room  # this process sees what it writes
        return Steps(board)

    def try_settings(
        self,
        settings: Sequence[Setting],
        proposed: Sequence[Proposed],
        evidence: Mapping[Case, TargetEvidence],
        terms: Terms,
        board: Board,
    ) -> Trials:
        def report(done: int, failed: int, seconds: float) -> None:
            board.add(STAGE, "settings", done, failed, seconds)

        sources: list[Source] = [*proposed, Listed(tuple(settings))]
        found: dict[str, Setting] = {}
        worker = Worker(terms, evidence.__getitem__, report)
        with _own_errors():
            for source in sources:
                given = worker.go_through(source)
                if isinstance(source, Proposed):
                    for setting in given:
                        found.setdefault(f"{setting.place.target} {setting.key}", setting)
        return Trials(list(found.values()), worker.tried_here)


class Steps:
    """See :class:`raymia.scoring.workers.Workers`: one job after another."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def map(
        self,
        what: str,
        step: Callable[..., Found],
        shared: tuple[Any, ...],
        jobs: Sequence[tuple[Any, ...]],
    ) -> list[Found]:
        found = []
        with _own_errors():
            for job in jobs:
                found.append(step(shared, *job))
                self._board.set(what, len(found), len(jobs))
        return found


def _makes_references(plan: AuditPlan) -> bool:
    return any(not preparation.ready for target in plan for preparation in target.preparations)


def _check_device(pools: Mapping[str, PoolSpec]) -> None:
    """Refuse pools that ask for a GPU where there is none, or for none where there is one.

    In this process models are on the GPU wherever torch sees one, and what they answer must be
    what the audit file says they are asked on.
    """
    import torch

    there = torch.cuda.is_available()
    problems = []
    for name, pool in pools.items():
        key = f"resources.{name}.gpus" if name else "gpus"
        if pool.gpus and not there:
            problems.append(
                f"{key}: {pool.gpus:g}, and torch sees no GPU here; set it to 0, or run the audit "
                "where there is one"
            )
        elif there and not pool.gpus:
            problems.append(
                f"{key}: 0, and with the local engine models are put on the GPU that torch sees; "
                "set it to 1, or set CUDA_VISIBLE_DEVICES to nothing"
            )
    if problems:
        raise InputError(problems)


def _own_threads() -> int:
    """Torch threads of this process, as OMP_NUM_THREADS or whoever calls has set them."""
    import torch

    return min(MAX_THREADS, torch.get_num_threads())


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Set torch's threads for the length of the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _own_errors() -> Iterator[None]:
    """What goes wrong with a worker is a RaymiaError."""
    try:
        yield
    except RaymiaError:
        raise
    except Exception as error:
        raise RaymiaError(f"a worker failed: {in_short(error)}") from error


def _let_go() -> None:
    """Give back the memory of models that nothing holds any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
