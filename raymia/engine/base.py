"""Who does the work of a run: Ray, or this process. Both do the same, and come to the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rich.console import Console

from raymia.engine.board import Board, OnLines
from raymia.engine.prepare import Making
from raymia.scoring.evidence import TargetEvidence
from raymia.scoring.workers import Workers
from raymia.spec import PoolSpec, ResourcesSpec
from raymia.spec.target_training import WorkersSpec
from raymia.sweep.evaluate import Setting
from raymia.sweep.proposals import Proposed
from raymia.sweep.work import Case, Terms, Trials
from raymia.util.errors import RaymiaError

if TYPE_CHECKING:
    from raymia.plan.planning import AuditPlan

Found = TypeVar("Found")


class Executor(Protocol):
    """Does the work of a run. What fails is raised as a RaymiaError, with its cause."""

    def check(self, plan: AuditPlan) -> None:
        """Refuse a plan that there is no place for.

        Raises
        ------
        InputError
            Naming the pools and what is missing.
        """

    def reporting(self, on_lines: OnLines | None = None) -> AbstractContextManager[Board]:
        """A board that is drawn while the block runs.

        Parameters
        ----------
        on_lines : see :func:`raymia.engine.board.drawn`.
        """

    def make(
        self, wanted: Sequence[Making], pool: PoolSpec, board: Board
    ) -> dict[str, RaymiaError]:
        """Make references, as many at a time as the pool has actors; they are in the store when
        this returns.

        Returns
        -------
        Why some of them could not be made, by their keys.
        """

    def ask(self, plan: AuditPlan, board: Board) -> dict[str, str]:
        """Ask everything that a plan misses; the answers are in the store when this returns.

        Records pass the stages of a stream block by block, and whoever asked a model commits the
        answers before the block goes on. What goes wrong with a model that one target alone has a
        part in is that target's failure; what goes wrong with others is raised.

        Returns
        -------
        The targets that failed, and why.
        """

    def call(self, functions: Sequence[Callable[[], Any]], pool: PoolSpec) -> list[Any]:
        """Call functions that train, each with the CPUs or GPUs of a pool to itself; with a
        machine's CPUs where the pool does not say.

        Raises
        ------
        InputError
            If no machine can take one of them.
        """

    def workers(self, board: Board, room: str) -> Workers:
        """Where the steps of a large reduction run.

        Parameters
        ----------
        room : a folder that all of them write to: the store, or the output folder.

        Raises
        ------
        InputError
            If some machine of the cluster does not see it.
        """

    def try_settings(
        self,
        settings: Sequence[Setting],
        proposed: Sequence[Proposed],
        evidence: Mapping[Case, TargetEvidence],
        terms: Terms,
        board: Board,
    ) -> Trials:
        """Go through settings of attacks; the results are in the store when this returns.

        Parameters
        ----------
        settings : that are known beforehand, and not tried yet.
        proposed : searches.
        """


Start = Callable[[], Executor]
"""Gives the executor of a run, which is started when it is first called for."""


@contextmanager
def engine(resources: ResourcesSpec, store_url: str, console: Console) -> Iterator[Start]:
    """The engine that an audit file names, for the length of the block.

    A run that has nothing to ask starts none.

    Parameters
    ----------
    store_url : the evidence store.
    console : is told of progress.
    """
    with ExitStack() as stack:

        @cache
        def start() -> Executor:
            return stack.enter_context(executor_of(resources, store_url, console))

        yield start


def executor_of(
    resources: ResourcesSpec, store_url: str, console: Console
) -> AbstractContextManager[Executor]:
    """Start an executor for the length of a block."""
    if resources.engine == "local":
        from raymia.engine.here.executor import in_this_process

        return in_this_process(resources, store_url, console)
    from raymia.engine.on_ray.executor import on_ray

    return on_ray(resources, store_url, console)


def call_together(
    train: Callable[[Callable[[int, int], None]], Found],
    workers: WorkersSpec,
    folder: str,
    console: Console,
) -> Found:
    """Call a function in several processes that train one model, as torch.distributed has them.

    Parameters
    ----------
    train : is given what it tells progress; its name says what is done.
    folder : that all machines share; what Ray keeps of the training there is removed.

    Returns
    -------
    What the first worker's call returned.

    Raises
    ------
    InputError
        If the cluster has no room for the workers, or does not share the folder.
    RaymiaError
        If a worker fails.
    """
    from raymia.engine.on_ray.together import run_together

    return run_together(train, workers, folder, console)
