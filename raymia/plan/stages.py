"""Stages of an audit: a model, the questions put to it, and what has no answer yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Literal

import numpy as np
import pyarrow as pa

from raymia.evidence.row_index import RowIndex
from raymia.evidence.store import FEW_THREADS, EvidenceKey, EvidenceStore
from raymia.models.loaders import Loader
from raymia.plan.missing import Missing
from raymia.prepare.recipe import Recipe
from raymia.questions.base import Question
from raymia.spec import PoolSpec

Role = Literal["neighbors", "target", "reference"]
PER_KIND = 1_024
"""More than there can be neighbors of one kind per record."""


@dataclass(frozen=True)
class PlannedQuestion:
    """A question, where its answers are stored, and what has no answer yet.

    Attributes
    ----------
    label : what plans and reports call the question; "make" for neighbors.
    missing : what to ask about, of all records and of the population, in the order of
        :attr:`raymia.inputs.Inputs.payloads`.
    stored : how many answers there are already.
    shared : how many an earlier stage of the audit asks for, which has the same key.
    of_population : whether it is put about the population too.
    """

    label: str
    question: Question
    key: EvidenceKey
    missing: Missing
    stored: int
    shared: int = 0
    of_population: bool = False

    @property
    def to_ask(self) -> int:
        return self.missing.count

    def without_missing(self) -> PlannedQuestion:
        """The same for whoever comes after one that asks it."""
        if not self.missing:
            return self
        nothing = Missing.nothing(self.missing.indices)
        return replace(self, missing=nothing, shared=self.missing.count)


@dataclass(frozen=True)
class Stage:
    """One model and the questions put to it.

    Attributes
    ----------
    only_for : the one target that the model matters to; None for a model that targets share.
    """

    name: str
    role: Role
    loader: Loader
    pool: PoolSpec
    questions: tuple[PlannedQuestion, ...]
    only_for: str | None = None

    @property
    def to_ask(self) -> int:
        return sum(planned.to_ask for planned in self.questions)

    @property
    def stored(self) -> int:
        return sum(planned.stored for planned in self.questions)

    @property
    def shared(self) -> int:
        return sum(planned.shared for planned in self.questions)

    @property
    def not_asked(self) -> int:
        """Answers that it need not ask for: they are stored, or an earlier stage asks for them."""
        return self.stored + self.shared

    def together_with(self, other: Stage) -> Stage:
        """The same with what a stage of its name is still to ask for another target."""
        questions = {(p.label, p.key.hash): p for p in self.questions}
        for planned in other.questions:
            place = planned.label, planned.key.hash
            before = questions.get(place)
            if before is not None:
                planned = replace(before, missing=before.missing | planned.missing)
            questions[place] = planned
        return replace(self, questions=tuple(questions.values()))


@dataclass(frozen=True)
class Preparation:
    """A reference that one target has a part in, and whether it is made."""

    reference: str
    recipe: Recipe
    ready: bool

    def stage_name(self, target: str) -> str:
        return f"{self.reference}:{target}"


@dataclass(frozen=True)
class TargetPlan:
    """What one target's audit consists of.

    Attributes
    ----------
    preparations : references that are made from the target.
    made_first : the stages that make neighbors, where attacks need them: one for each kind.
    target : the stage of the checkpoint under audit.
    references : the stages of the references, by name. One whose preparation is not ready has a key
        that nothing is stored under.
    """

    name: str
    preparations: tuple[Preparation, ...]
    made_first: tuple[Stage, ...]
    target: Stage
    references: dict[str, Stage]

    @property
    def neighbors(self) -> Stage | None:
        """The stage that makes the first kind of neighbors."""
        return next(iter(self.made_first), None)

    @property
    def stages(self) -> list[Stage]:
        """All stages, in the order in which a block of records passes them."""
        return [*self.made_first, self.target, *self.references.values()]

    @property
    def to_ask(self) -> int:
        return sum(stage.to_ask for stage in self.stages)


def by_name(stages: Iterable[Stage]) -> dict[str, Stage]:
    """Stages by name; one that targets share has what any of them is still to ask."""
    found: dict[str, Stage] = {}
    for stage in stages:
        before = found.get(stage.name)
        found[stage.name] = stage if before is None else before.together_with(stage)
    return found


def wanted_neighbors(stages: Iterable[Stage], place: int = 0) -> Missing:
    """The neighbors of the kind at a place that models are still to be asked about."""
    about = (
        p
        for stage in stages
        for p in stage.questions
        if p.question.subject == "neighbor" and p.question.neighbors_place == place
    )
    return reduce(or_, (p.missing for p in about), Missing.nothing(range(0)))


def stored_neighbors(stages: Sequence[Stage], store: EvidenceStore) -> Iterator[pa.Table]:
    """Read stored neighbors that the stages' models are still to be asked about.

    Parameters
    ----------
    stages : of one stream, that of the neighbors among them where there is one.

    Yields
    ------
    Tables of ``row`` (int64), the record's among :attr:`raymia.inputs.Inputs.payloads`,
    ``neighbor`` (int16) and ``payload`` (large string), in which each neighbor comes once. Its
    number is that of :func:`number_in_block`.
    """
    makers = [p for stage in stages for p in stage.questions if p.question.makes_neighbors]
    kinds = dict.fromkeys(maker.question.neighbors_place for maker in makers)
    for kind in kinds:
        own = [maker for maker in makers if maker.question.neighbors_place == kind]
        yield from _stored(own, wanted_neighbors(stages, kind), store)


def number_in_block(question: Question, index: int) -> int:
    """What a block calls a neighbor: its index, with the place of its kind among the kinds."""
    return question.neighbors_place * PER_KIND + index


def _stored(
    makers: Sequence[PlannedQuestion], wanted: Missing, store: EvidenceStore
) -> Iterator[pa.Table]:
    """The stored neighbors of one kind."""
    for maker in makers:
        wanted -= maker.missing
    if not wanted:
        return
    records, left = RowIndex(wanted.ids), wanted.cells.copy()
    first_number = number_in_block(makers[0].question, wanted.indices.start)
    for table in store.parts(makers[0].key, ["payload"], FEW_THREADS):
        picked, rows, columns = records.cells_of(table, wanted.indices)
        _, first = np.unique(rows * len(wanted.indices) + columns, return_index=True)
        new = first[left[rows[first], columns[first]]]
        left[rows[new], columns[new]] = False
        if new.size:
            yield pa.table(
                {
                    "row": rows[new],
                    "neighbor": (columns[new] + first_number).astype(np.int16),
                    # Offsets of 64 bits: many of them may be put together.
                    "payload": table["payload"].take(pa.array(picked[new])).cast(pa.large_string()),
                }
            )
