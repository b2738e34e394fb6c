"""Words by frequency, for neighbors that need no model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from raymia.util.hashing import digest

WORD_LIST = Path(__file__).with_name("words.txt")
"""English words, commonest first (tools/build_word_list.py)."""

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
"""A run of letters, with apostrophes inside."""

NARROWEST = 20
"""Ranks from which even the commonest words draw."""


@dataclass(frozen=True)
class WordList:
    """Words, the commonest first; a word's rank is its place, from 1."""

    words: tuple[str, ...]

    @cached_property
    def ranks(self) -> dict[str, int]:
        return {word.lower(): rank for rank, word in enumerate(self.words, 1)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the words and their order."""
        return digest(list(self.words))

    def other(self, word: str, draws: np.random.Generator) -> str:
        """Draw another word of like frequency, capitalized as ``word`` is.

        By Zipf's law frequency falls as 1 / rank, so ranks from half to twice the word's own are
        words up to twice as common or as rare. Every one of them but the word itself is as likely
        as another. A word that is not in the list counts as rarer than all of it.
        """
        plain = word.lower().replace("’", "'")
        rank = self.ranks.get(plain, len(self.words) + 1)
        first, last = (rank + 1) // 2, min(max(2 * rank, NARROWEST), len(self.words))
        place = int(draws.integers(first, last + (rank > last)))
        if rank <= last and place >= rank:
            place += 1
        return _capitalized_as(word, self.words[place - 1])


def _capitalized_as(model: str, word: str) -> str:
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word


def load_word_list() -> WordList:
    """The list that ships with raymia."""
    return WordList(tuple(WORD_LIST.read_text(encoding="utf-8").split()))
