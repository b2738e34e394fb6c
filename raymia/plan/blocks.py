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
KEY_SECONDS = 0.2
"""Of an actor, for each key that a block leaves a part under. Committing a part takes a slow bucket
0.1 s, and an actor commits one after another, beside the model: so it keeps up. Up to 50 keys of a
pool, the most seconds above are more."""
LONGEST_SECONDS = 120.0
"""However many keys there are: what an actor's block takes is asked again where the actor dies."""
MOST_QUESTIONS = 2**18
"""To a pool, for a block that takes more than the most seconds. While the store does not answer,
an actor holds all answers to a block: a GB of texts of some hundred tokens."""
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


@dataclass(frozen=True)
class _Asked:
    """What a stream asks.

    Attributes
    ----------
    stages : of the stream; held, as what is known of them is found by where they lie in memory.
    """

    stages: Sequence[Stage]
    pools: Sequence[Pool]

    @cached_property
    def records(self) -> int:
        return records_of(self.pools)


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
        self._asked: dict[int, _Asked] = {}

    def of(self, stages: Sequence[Stage]) -> BlockSize:
        """What a block of a stream is, by what is known now."""
        return self._of(stages, self._known_now())

    def records(self, stages: Sequence[Stage]) -> int:
        """How many records it has."""
        return self._given or self.of(stages).records

    def smallest(self) -> int:
        """The fewest records of a block of any stream."""
        if self._given is not None:
            return self._given
        seconds = self._known_now()
        asking = (stages for stages in self._streams if self._asked_by(stages).pools)
        return min((self._of(stages, seconds).records for stages in asking), default=FIRST_RECORDS)

    def _of(self, stages: Sequence[Stage], seconds: Seconds) -> BlockSize:
        asked = self._asked_by(stages)
        return block_size(self._given, asked.pools, seconds, asked.records)

    def _asked_by(self, stages: Sequence[Stage]) -> _Asked:
        """What a stream asks; put together once, of thousands of stages and all records."""
        asked = self._asked.get(id(stages))
        if asked is None:
            asked = self._asked[id(stages)] = _Asked(stages, pools_of(stages))
        return asked

    def _known_now(self) -> Seconds:
        """What is known of an actor's seconds per question, from one look at what stages did."""
        took: dict[str, tuple[int, float]] = {}
        for name, line in self._lines().items():
            if (key := self._keys.get(name)) is not None:
                done, spent = took.get(key, (0, 0.0))
                took[key] = done + line.done, spent + line.seconds

        def seconds(stage: Stage) -> float | None:
            key = self._keys[stage.name]
            done, spent = took.get(key, (0, 0.0))
            if done >= MIN_ITEMS:
                return spent / done
            rate = self._seen(self._rates.get, key)
            return None if rate is None else rate.at(self._size)

        return seconds

    @cached_property
    def _keys(self) -> dict[str, str]:
        """What the rates of stages are filed under, by the stages' names."""
        asking = (stage for stages in self._streams for stage in stages if stage.to_ask)
        return {stage.name: stage_key(stage, self._seen) for stage in asking}


def block_size(
    given: int | None, pools: Sequence[Pool], seconds: Seconds, rows: int | None = None
) -> BlockSize:
    """What a block is that passes pools.

    Parameters
    ----------
    given : records of a block, as the audit file says; None where it leaves that open.
    seconds : per question of a stage; None where that is not known.
    rows : what :func:`records_of` says of the pools, if that was looked at before.
    """
    takes = [_takes(pool, seconds) for pool in pools]
    known = [one for one in takes if one is not None]
    rows = records_of(pools) if rows is None else rows
    fewest = math.ceil(rows / MAX_BLOCKS)
    if not known or len(known) < len(takes):
        return BlockSize(given or max(_first(pools, rows), fewest), None)
    slowest, actors = max(known)
    each = slowest / rows
    if given is not None:
        return BlockSize(given, given * each)
    wanted = min(max(slowest / actors / BLOCKS_EACH, LEAST_SECONDS), MOST_SECONDS)
    records = max(1, min(round(wanted / each), MOST_RECORDS)) if each else MOST_RECORDS
    records = max(records, fewest, _for_keys(pools, rows, each))
    return BlockSize(records, records * each)


def _for_keys(pools: Sequence[Pool], rows: int, each: float) -> int:
    """Records of a block that is worth its commits, where some keys are many; else 0.

    Parameters
    ----------
    each : seconds of an actor of the slowest pool, for a record.
    """
    wanted = min(KEY_SECONDS * max(map(_keys_of, pools)), LONGEST_SECONDS)
    if wanted <= MOST_SECONDS or not each:
        return 0
    at_most = max(pool.spec.max_actors or pool.spec.actors for pool in pools)
    seconds = min(wanted, each * rows / at_most / BLOCKS_EACH)
    return min(round(seconds / each), MOST_RECORDS, _records_for(MOST_QUESTIONS, pools, rows))


def _keys_of(pool: Pool) -> int:
    """How many keys a block leaves parts under."""
    return sum(bool(planned.missing) for stage in pool.stages for planned in stage.questions)


def _first(pools: Sequence[Pool], rows: int) -> int:
    """Records of a block while it is not known how long the models take."""
    return max(1, min(FIRST_RECORDS, _records_for(FIRST_QUESTIONS, pools, rows)))


def _records_for(questions: int, pools: Sequence[Pool], rows: int) -> int:
    """About how many records each pool is asked no more than so many questions."""
    most = max((sum(stage.to_ask for stage in pool.stages) for pool in pools), default=0)
    return questions * rows // max(1, most)


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
