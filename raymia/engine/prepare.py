"""Making references, wherever that is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from raymia.engine.board import Board, reporter
from raymia.evidence.store import EvidenceStore
from raymia.models.source import bring, origins_of
from raymia.plan.stages import Preparation
from raymia.prepare.parts import PartsMissing, Share
from raymia.prepare.recipe import Recipe, Shareable
from raymia.spec import PoolSpec
from raymia.util.errors import RaymiaError

if TYPE_CHECKING:
    from raymia.prepare.trainer import Progress

MAX_THREADS = 8
"""Small models are slower, not faster, on more threads than this."""


@dataclass(frozen=True)
class Making:
    """References that are made one after another, since the same texts or images are what they are
    made of; others may be made beside them.

    Attributes
    ----------
    name : of the first, for messages.
    recipes : with the name that each is reported by.
    """

    name: str
    recipes: tuple[tuple[str, Recipe], ...]

    @property
    def material_key(self) -> str:
        return self.recipes[0][1].material_key


def makings(wanted: Iterable[tuple[str, Preparation]]) -> list[Making]:
    """What is to be made, each once, from targets' names and what they have a part in."""
    by_material: dict[str, dict[str, tuple[str, Recipe]]] = {}
    for target, preparation in wanted:
        recipe = preparation.recipe
        named = preparation.stage_name(target), recipe
        by_material.setdefault(recipe.material_key, {}).setdefault(recipe.key, named)
    made = [tuple(own.values()) for own in by_material.values()]
    return [Making(recipes[0][0], recipes) for recipes in made]


def reference_maker(
    making: Making, pool: PoolSpec, store_url: str, board: Board
) -> Callable[[], dict[str, RaymiaError]]:
    """What makes references on the machine it is called on. They are in the store when it returns,
    but for those of which it returns why they cannot be made, by their keys."""
    origins = origins_of(
        model for _, recipe in making.recipes for model in (recipe.target, recipe.base)
    )

    def make() -> dict[str, RaymiaError]:
        bring(origins)
        store, failed = EvidenceStore(store_url), dict[str, RaymiaError]()
        for place, (name, recipe) in enumerate(making.recipes):
            try:
                recipe.make(store, pool, partial(_reporter, board, name))
            except RaymiaError as error:
                if store.prepared_facts(recipe.material_key) is None:  # nor would the others
                    rest = (other.key for _, other in making.recipes[place:])
                    return failed | dict.fromkeys(rest, error)
                failed[recipe.key] = error
        return failed

    make.__name__ = f"prepare {making.name}"
    return make


def share_writers(
    making: Making, workers: int, pool: PoolSpec, store_url: str, board: Board
) -> list[Callable[[], None]]:
    """What writes a share each of what references are made of, on the machines that each is called
    on; none where one worker writes it all, which is then left to :func:`reference_maker`.

    They are called again and again, all of them, for as many rounds as the recipe has.
    """
    name, recipe = making.recipes[0]
    if not isinstance(recipe, Shareable):
        return []
    count = min(workers, recipe.shares)
    origins = origins_of([recipe.target])

    def writer(number: int) -> Callable[[], None]:
        def write() -> None:
            bring(origins)
            place = f"{name}, {number + 1} of {count}"
            with suppress(PartsMissing):
                report = partial(_reporter, board, place)
                recipe.write_share(Share(number, count), EvidenceStore(store_url), pool, report)

        write.__name__ = f"write {making.name}"
        return write

    return [writer(number) for number in range(count)] if count > 1 else []


def rounds_of(making: Making) -> int:
    """How often the writers of a share are called."""
    recipe = making.recipes[0][1]
    return recipe.rounds if isinstance(recipe, Shareable) else 0


def _reporter(board: Board, name: str, doing: str) -> Progress:
    return reporter(board, f"{doing}: {name}")


def training_threads(pool: PoolSpec) -> int:
    """Torch threads of what has a machine's CPUs to itself, or a pool's.

    Where a pool says how many CPUs it wants, there are as many threads, and one at least: networks
    of a few ten thousand weights are several times slower on two threads than on one.
    """
    given = os.cpu_count() if pool.cpus is None else int(pool.cpus)
    return min(MAX_THREADS, given or 1)
