"""Which question makes the neighbors that an audit file asks for, and what answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raymia.models.causal.training import Training
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.loaders import Loader
from raymia.neighbors.infill import InfillQuestion
from raymia.neighbors.mask_fill import MaskFillQuestion
from raymia.neighbors.substitute import SubstituteQuestion
from raymia.neighbors.word_list import WordList, load_word_list
from raymia.questions.base import Question
from raymia.spec import InfillNeighbors, PoolSpec, SubstituteNeighbors, TextNeighbors
from raymia.util.errors import RaymiaError


@dataclass(frozen=True)
class WordListLoader(Loader):
    """Loads the word list that ships with raymia, in place of a model."""

    fingerprint: str
    checkpoint: None = None

    def load(self) -> WordList:
        words = load_word_list()
        if words.fingerprint != self.fingerprint:
            raise RaymiaError(
                f"the word list of this machine's raymia is {words.fingerprint}, and the audit was "
                f"planned with {self.fingerprint}; install the same raymia on every machine"
            )
        return words


@dataclass(frozen=True)
class NeighborMaker:
    """A question that makes neighbors, with the fingerprint and the loader of what answers it."""

    question: Question
    fingerprint: str
    loader: Loader


def neighbor_maker(
    spec: TextNeighbors,
    seed: int,
    paraphraser: AnyCheckpoint | None,
    pool: PoolSpec,
    training: Training | None = None,
    place: int = 0,
) -> NeighborMaker:
    """The maker of a kind of neighbors; ``paraphraser`` is None for the kind without a model, and
    ``training`` where records are texts; ``place`` is its own among the audit file's."""
    whose: Any = {"training": training, "place": place}
    if isinstance(spec, SubstituteNeighbors):
        fingerprint = load_word_list().fingerprint
        return NeighborMaker(
            SubstituteQuestion(spec, seed, **whose),
            fingerprint,
            WordListLoader(fingerprint),
        )
    if paraphraser is None:
        raise ValueError(f"neighbors of kind {spec.kind} are made by a model, and none was given")
    question = (
        InfillQuestion(spec, seed, **whose)
        if isinstance(spec, InfillNeighbors)
        else MaskFillQuestion(spec, seed, **whose)
    )
    return NeighborMaker(question, paraphraser.fingerprint, paraphraser.loader(pool))
