"""A stream: stages that blocks of records pass one after another, in pools of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from raymia.engine.readings import read_column
from raymia.engine.stage import FAILED, RECORD_COLUMNS, PoolConfig, Task, todo_column
from raymia.evidence.store import EvidenceKey
from raymia.models.source import origins_of
from raymia.plan.pools import Pool, pools_of
from raymia.plan.stages import PlannedQuestion, Stage


@dataclass(frozen=True, eq=False)
class Stream:
    """Stages that records pass one after another.

    Attributes
    ----------
    number : its place in the order in which streams start.
    """

    number: int
    stages: Sequence[Stage]

    @cached_property
    def pools(self) -> list[Pool]:
        """The pools of the stages that still ask something, in the order of the stages."""
        return pools_of(self.stages)

    @property
    def asking(self) -> list[Stage]:
        """The stages that still ask something, in the order in which a block passes them."""
        return [stage for pool in self.pools for stage in pool.stages]

    @property
    def keys(self) -> list[EvidenceKey]:
        """The keys that answers are stored under."""
        return [planned.key for stage in self.asking for planned in _missing(stage)]

    def key(self, pool: Pool) -> str:
        """What a pool is called on the board: two streams may have pools of one name."""
        return f"{self.number} {pool.name}"

    def waits_for(self, other: Stream) -> bool:
        """Whether it asks about neighbors that the other one makes."""
        makes = any(stage.role == "neighbors" and stage.to_ask for stage in other.stages)
        return makes and any(
            planned.to_ask and planned.question.subject == "neighbor"
            for stage in self.stages
            for planned in stage.questions
        )

    def configs(self, store_url: str) -> list[PoolConfig]:
        """What the workers of each pool are made from."""
        return [
            PoolConfig(
                key=self.key(pool),
                tasks=tuple(
                    Task(
                        stage.name,
                        stage.loader,
                        tuple((p.label, p.question, p.key) for p in _missing(stage)),
                        stage.only_for,
                        _reading(stage),
                    )
                    for stage in pool.stages
                ),
                store_url=store_url,
                passes_on=self._needed_after(number),
                origins=origins_of(stage.loader.checkpoint for stage in pool.stages),
            )
            for number, pool in enumerate(self.pools)
        ]

    def _needed_after(self, number: int) -> tuple[str, ...]:
        """The columns that pools after one need of a block."""
        later = [stage for pool in self.pools[number + 1 :] for stage in pool.stages]
        if not later:
            return "record_id", FAILED.name
        todo = [todo_column(planned.key) for stage in later for planned in _missing(stage)]
        so_far = {_reading(stage) for pool in self.pools[: number + 1] for stage in pool.stages}
        still = dict.fromkeys(map(_reading, later))
        read = [read_column(one) for one in still if one is not None and one in so_far]
        return *RECORD_COLUMNS, FAILED.name, *todo, *read


def _reading(stage: Stage) -> str | None:
    checkpoint = stage.loader.checkpoint
    return None if checkpoint is None else checkpoint.reading


def _missing(stage: Stage) -> list[PlannedQuestion]:
    return [planned for planned in stage.questions if planned.missing]
