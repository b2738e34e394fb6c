"""Making a reference, wherever that is done."""

from __future__ import annotations

import os
from collections.abc import Callable

from raymia.engine.board import Board, reporter
from raymia.evidence.store import EvidenceStore
from raymia.models.source import bring, origins_of
from raymia.plan.stages import Preparation
from raymia.spec import PoolSpec

MAX_THREADS = 8
"""Small models are slower, not faster, on more threads than this."""


def reference_maker(
    preparation: Preparation, target: str, pool: PoolSpec, store_url: str, board: Board
) -> Callable[[], None]:
    """What makes a reference on the machine it is called on; it is in the store when it returns."""
    name, recipe = preparation.stage_name(target), preparation.recipe
    origins = origins_of([recipe.target, recipe.base])

    def make() -> None:
        bring(origins)
        recipe.make(
            EvidenceStore(store_url), pool, lambda doing: reporter(board, f"{doing}: {name}")
        )

    make.__name__ = f"prepare {name}"
    return make


def training_threads(pool: PoolSpec) -> int:
    """Torch threads of what has a machine's CPUs to itself, or a pool's.

    Where a pool says how many CPUs it wants, there are as many threads, and one at least: networks
    of a few ten thousand weights are several times slower on two threads than on one.
    """
    given = os.cpu_count() if pool.cpus is None else int(pool.cpus)
    return min(MAX_THREADS, given or 1)
