"""How many records a block has, where the audit file leaves it open.

A block of a few seconds hides what is done once for each: a commit, a task of Ray, an uneven last
batch. A longer one is only more that is asked again after a kill.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.plan.pools import Pool, pools_of
from raymia.plan.rates import MIN_ITEMS, Measured, Rates, stage_key
from raymia.plan.stages import Stage
from raymia.util.once import Once

FIRST_RECORDS, FIRST_QUESTIONS = 32, 128
"""While it is not known how long the models take: no more of either, the latter to each pool."""
MOST_RECORDS = 8_192
MAX_BLOCKS = 4_000
"""Of a stream: beyond so many its blocks grow instead. The driver holds some 40 kB for each, and a
kill costs a part of the whole that nobody notices."""
LEAST_SECONDS, MOST_SECONDS = 2.0, 10.0
"""Of an actor of the slowest pool, for a block. What is measured varies: 20 s is what is meant to
be the end."""
BLOCKS_EACH = 8
"""For each actor, so that pools fill and empty in a small part of the time; where these would take
less than the least, there are fewer."""

Lines = Callable[[], Mapping[str, Measured]]
Seconds = Callable[[Stage], float | None]


@dataclass(frozen=True)
class BlockSize:
    """What a block of a stream is.

    Attributes
    ----------
    seconds : that an actor of the slowest pool takes for it; None where no run has measured that.
    """

    records: int
    seconds: float | None


class BlockSizes:
    """The sizes of blocks in an audit.

    Parameters
    ----------
    streams : the stages of all streams.
    store : where runs have left their rates.
    lines : what stages have done in this run, by name. Where one with the same questions and
        architecture has done enough, what it took counts, and not what earlier runs took.
    """

    def __init__(
        self,
        inputs: Inputs,
        streams: Sequence[Sequence[Stage]],
        store: EvidenceStore,
        lines: Lines = dict,
    ) -> None:
        given = inputs.spec.resources.block_records
        self._given = given if isinstance(given, int) else None
        self._size = inputs.modality.mean_size(inputs.records)
        self._streams, self._rates, self._lines = streams, Rates(store), lines
        self._seen = Once()

    def of(self, stages: Sequence[Stage]) -> BlockSize:
        """What a block of a stream is, by what is known now."""
        return block_size(self._given, pools_of(stages), self._seconds)

    def records(self, stages: Sequence[Stage]) -> int:
        """How many records it has."""
        return self.of(stages).records

    def smallest(self) -> int:
        """The fewest records of a block of any stream."""
        return min(
            (self.of(s).records for s in self._streams if pools_of(s)), default=FIRST_RECORDS
        )

    def _seconds(self, stage: Stage) -> float | None:
        """Of an actor, per question."""
        key, lines = self._keys[stage.name], self._lines()
        alike = [
            lines[name] for name, other in self._keys.items() if other == key and name in lines
        ]
        done = sum(line.done for line in alike)
        if done >= MIN_ITEMS:
            return sum(line.seconds for line in alike) / done
        rate = self._seen(self._rates.get, key)
        return None if rate is None else rate.at(self._size)

    @cached_property
    def _keys(self) -> dict[str, str]:
        """What the rates of stages are filed under, by the stages' names."""
        asking = (stage for stages in self._streams for stage in stages if stage.to_ask)
        return {stage.name: stage_key(stage, self._seen) for stage in asking}


def block_size(given: int | None, pools: Sequence[Pool], seconds: Seconds) -> BlockSize:
    """What a block is that passes pools.

    Parameters
    ----------
    given : records of a block, as the audit file says; None where it leaves that open.
    seconds : per question of a stage; None where that is not known.
    """
    takes = [_takes(pool, seconds) for pool in pools]
    known = [one for one in takes if one is not None]
    rows = records_of(pools)
    fewest = math.ceil(rows / MAX_BLOCKS)
    if not known or len(known) < len(takes):
        return BlockSize(given or max(_first(pools, rows), fewest), None)
    slowest, actors = max(known)
    each = slowest / rows
    if given is not None:
        return BlockSize(given, given * each)
    wanted = min(max(slowest / actors / BLOCKS_EACH, LEAST_SECONDS), MOST_SECONDS)
    records = max(1, min(round(wanted / each), MOST_RECORDS)) if each else MOST_RECORDS
    records = max(records, fewest)
    return BlockSize(records, records * each)


def _first(pools: Sequence[Pool], rows: int) -> int:
    """Records of a block while it is not known how long the models take."""
    most = max((sum(stage.to_ask for stage in pool.stages) for pool in pools), default=0)
    return max(1, min(FIRST_RECORDS, FIRST_QUESTIONS * rows // max(1, most)))


def _takes(pool: Pool, seconds: Seconds) -> tuple[float, int] | None:
    """Seconds that one actor alone takes for all that a pool is asked, and how many there are."""
    parts = [seconds(stage) for stage in pool.stages]
    total = 0.0
    for stage, part in zip(pool.stages, parts, strict=True):
        if part is None:
            return None
        total += part * stage.to_ask
    return total, pool.spec.actors


def records_of(pools: Sequence[Pool]) -> int:
    """Records that something is to be asked about."""
    missing = [
        planned.missing.records
        for pool in pools for stage in pool.stages for planned in stage.questions
        if planned.missing
    ]  # fmt: skip
    return int(np.count_nonzero(np.any(missing, axis=0)))
