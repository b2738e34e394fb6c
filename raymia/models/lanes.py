"""Batches that a CPU runs side by side, each in a thread with cores of its own.

Where all threads share each operation, they wait for each other at its end, some hundred times in a
batch, and for whatever else the machine does in between. Where each has a batch, they do not. Each
thread has a twin of the model: modules, configs and caches of its own, on the same weights.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, Lock
from typing import Any, TypeVar

import torch

LOG = logging.getLogger(__name__)
MAX_LANES = 4
"""Each holds what its batch needs, so there are not as many as a large machine has cores."""
MAX_COPIED_BYTES = 32 * 2**20
"""Of what is no weight and that each copy has of its own."""

KNOWN = ("torch.", "transformers.", "diffusers.", "peft.", "raymia.")
"""Packages whose modules keep what they keep in themselves."""

Answer = TypeVar("Answer")
Found = list[tuple[list[int], Sequence[Answer]]]
Failure = tuple[list[int], BaseException]


class Twins:
    """Copies of a module on the same weights, one for each lane.

    Models that share a module share its copies.

    Attributes
    ----------
    made : those that there are; what is changed in the module is to be changed in these too.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._may_be: bool | None = None
        self.made: list[Any] = []

    def of(self, lanes: int) -> list[Any]:
        """As many; none where they could meet."""
        if self._may_be is None:
            self._may_be = can_be_shared(self._module)
        try:
            while self._may_be and len(self.made) < lanes:
                self.made.append(sharing_weights(self._module))
        except Exception as error:  # of any kind, by what a module holds that cannot be copied
            LOG.info("batches are run one after another: %s", error)
            self._may_be, self.made = False, []
        return self.made[:lanes]


def lanes_here() -> tuple[int, int]:
    """How many batches this thread may have run side by side, and by how many threads each."""
    threads = torch.get_num_threads()
    if threads == 1 or torch.cuda.is_available():
        return 1, threads
    each = -(-threads // MAX_LANES)
    return threads // each, each


def sharing_weights(module: Any) -> Any:
    """A copy of a module on the same weights; what it copies takes part in gradients as before."""
    with torch.inference_mode(mode=False):
        return copy.deepcopy(module, {id(weight): weight for weight in module.parameters()})


def run_in_lanes(
    runs: Sequence[Callable[[list[int]], Sequence[Answer]]], batches: Sequence[list[int]]
) -> tuple[Found[Answer], Failure | None]:
    """Run batches in their order, as many at once as there are functions, until one fails.

    Returns
    -------
    The answers of those that were run, and the batch that failed first with its error.
    """
    waiting, lock = iter(batches), Lock()
    found: Found[Answer] = []
    failures: list[Failure] = []

    def run_on(run: Callable[[list[int]], Sequence[Answer]]) -> None:
        for batch in _until(failures, waiting, lock):
            try:
                found.append((batch, run(batch)))
            except BaseException as error:
                failures.append((batch, error))

    if len(runs) == 1 or len(batches) == 1:
        run_on(runs[0])
    else:
        _together(run_on, runs, failures)
    del failures[1:]  # with what their batches hold
    return found, failures[0] if failures else None


def _together(run_on: Callable[[Any], None], runs: Sequence[Any], failures: list[Failure]) -> None:
    running = [_threads(*lanes_here()).submit(run_on, run) for run in runs]
    try:
        for one in running:
            one.result()
    except BaseException as error:  # this thread is interrupted
        failures.append(([], error))
        raise


def _until(
    failures: list[Failure], waiting: Iterator[list[int]], lock: Lock
) -> Iterator[list[int]]:
    while not failures:
        with lock:
            batch = next(waiting, None)
        if batch is None:
            return
        yield batch


@cache
def _threads(lanes: int, each: int) -> ThreadPoolExecutor:
    """Threads that stay, each with its own number of torch's."""
    before = torch.get_num_threads()
    threads = ThreadPoolExecutor(lanes, "lane", _set_own_threads, (each,))
    all_are_up = Barrier(lanes)
    for one in [threads.submit(all_are_up.wait) for _ in range(lanes)]:
        one.result()
    torch.set_num_threads(before)  # later threads take what was set last
    return threads


def _set_own_threads(count: int) -> None:
    torch.get_num_threads()  # else this thread's first operation takes what was set last
    torch.set_num_threads(count)


def can_be_shared(module: Any) -> bool:
    """Whether copies of a module do not meet: not known of code from outside, of layers that unpack
    their weights, and of weights that are moved while they are used."""
    parts = list(module.modules())
    return (
        all(type(part).__module__.startswith(KNOWN) for part in parts)
        and not any(getattr(part, "hf_quantizer", None) for part in parts)
        and not any(hasattr(part, "_hf_hook") for part in parts)
        and all(weight.is_floating_point() for weight in module.parameters())
        and sum(int(held.nbytes) for held in module.buffers()) <= MAX_COPIED_BYTES
    )
