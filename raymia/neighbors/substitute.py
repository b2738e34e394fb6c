"""Neighbors of a text: words replaced by others of like frequency, as a control without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from raymia.neighbors.drafts import neighbor_row
from raymia.neighbors.masking import replace_spans
from raymia.neighbors.parts import MakesNeighbors
from raymia.neighbors.word_list import WORD, WordList
from raymia.questions.base import Item, variants
from raymia.spec import SubstituteNeighbors
from raymia.util.draws import generator

NO_WORD = "no word to replace"


@dataclass(frozen=True)
class SubstituteQuestion(MakesNeighbors):
    """A neighbor by word substitution: a function of (seed, record, neighbor index).

    ``share`` of a text's words, rounded, and one at least, are chosen at random and replaced
    (:meth:`WordList.other`). Whatever is not a letter stays as it is.
    """

    spec: SubstituteNeighbors
    seed: int
    kind: ClassVar[str] = "neighbors.substitute"
    version: ClassVar[int] = 1

    def indices(self) -> range:
        return variants(self.spec.count)

    def own_key_parts(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "share": self.spec.share}

    def make(self, model: WordList, items: Sequence[Item]) -> pa.Table:
        """Make each item's neighbor from its record's text; one row per item, in input order."""
        return pa.Table.from_pylist([self._row(model, item) for item in items], schema=self.schema)

    def _row(self, words: WordList, item: Item) -> dict[str, Any]:
        places = [match.span() for match in WORD.finditer(item.payload)]
        if not places:
            return neighbor_row(item, error=NO_WORD)
        draws = generator(self.seed, "substitute", item.record_id, item.neighbor)
        chosen = draws.permutation(len(places))[: max(1, round(self.spec.share * len(places)))]
        replacements = [
            ((begin, end), words.other(item.payload[begin:end], draws))
            for begin, end in (places[i] for i in chosen)
        ]
        text = replace_spans(item.payload, replacements)
        return neighbor_row(item, text, len(chosen) / len(places), attempts=1)
