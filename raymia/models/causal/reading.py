"""What turns a record into tokens, and plain texts, which the tokenizer alone reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from raymia.util.pieces import pieces

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rendered:
    """A record as a model reads it.

    Attributes
    ----------
    ids : its tokens, as the training saw them.
    scored : bool [tokens], which of them carried a loss; None for all. The first token has no
        context, and is scored in no case.
    truncated : whether the training cut the record.
    error : why it cannot be scored; ``ids`` are empty then.
    """

    ids: list[int]
    scored: Bools | None = None
    truncated: bool = False
    error: str | None = None


class Reader(Protocol):
    """Turns payloads of records into what a model reads."""

    def read(self, payloads: Sequence[str]) -> list[Rendered]:
        """The tokens of each payload, and which are scored."""

    def read_after(self, payloads: Sequence[str]) -> list[Rendered]:
        """The same where other tokens come before: without a token that begins a text."""

    def before(self, payloads: Sequence[str]) -> list[int]:
        """The tokens of payloads one after another, which others are to follow."""

    def begun(self, payload: str, share: float) -> tuple[list[int], int, int]:
        """What a model is given of a record so that it writes the rest.

        Parameters
        ----------
        share : of a text's words.

        Returns
        -------
        Tokens of the beginning; of the whole, a number; and where the rest begins in :meth:`text`,
        in characters.
        """

    def text(self, payload: str) -> str:
        """The text of what is scored."""

    def words(self, ids: Sequence[int]) -> str:
        """What a model wrote on from :meth:`begun`, as :meth:`text` has it."""

    def changed(self, payload: str, change: Callable[[str], str]) -> str:
        """The payload with the text of what is scored changed, and nothing else."""


class PlainReader:
    """Reads a text as the tokenizer does by default, and scores all of it.

    Parameters
    ----------
    special_tokens : whether the tokenizer adds its own.
    """

    def __init__(self, tokenizer: Any, special_tokens: bool = True) -> None:
        self.tokenizer = tokenizer
        self.options = {} if special_tokens else {"add_special_tokens": False}

    def read(self, payloads: Sequence[str]) -> list[Rendered]:
        return [Rendered(tokens) for tokens in encoded(self.tokenizer, payloads, **self.options)]

    def read_after(self, payloads: Sequence[str]) -> list[Rendered]:
        """An end that the tokenizer adds stays: what is scored is the same as without a prefix."""
        bare = encoded(self.tokenizer, payloads, add_special_tokens=False)
        whole = encoded(self.tokenizer, payloads, **self.options)
        return [
            Rendered(_without_beginning(ids, own)) for ids, own in zip(whole, bare, strict=True)
        ]

    def before(self, payloads: Sequence[str]) -> list[int]:
        return self._beginning("\n\n".join(payloads) + "\n\n")

    def begun(self, payload: str, share: float) -> tuple[list[int], int, int]:
        start = rest_begins(payload, share)
        prompt = self._beginning(payload[:start].rstrip()) if start else []
        return prompt, len(self._beginning(payload)), start

    def _beginning(self, text: str) -> list[int]:
        return beginnings(self.tokenizer, [text], **self.options)[0]

    def text(self, payload: str) -> str:
        return payload

    def words(self, ids: Sequence[int]) -> str:
        return text_of(self.tokenizer, ids)

    def changed(self, payload: str, change: Callable[[str], str]) -> str:
        return change(payload)


def beginnings(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """Tokens of texts that something is to follow: without the end that some tokenizers add."""
    end = tokenizer.eos_token_id
    return [
        ids[:-1] if ids and ids[-1] == end and not text.endswith(tokenizer.eos_token) else ids
        for ids, text in zip(encoded(tokenizer, texts, **options), texts, strict=True)
    ]


def encoded(tokenizer: Any, texts: Sequence[str], **options: Any) -> list[list[int]]:
    """Tokens of texts, uncut."""
    return [
        ids
        for piece in pieces(texts)
        for ids in tokenizer(piece, verbose=False, **options)["input_ids"]
    ]


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text that tokens are of, with what stands in it as a token of its own, as a mark of a
    chat template: the tokenizer reads it as these tokens again."""
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def added_around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer puts before and after every text."""
    own = tokenizer("0", add_special_tokens=False, verbose=False)["input_ids"]
    whole = list(tokenizer("0", verbose=False)["input_ids"])
    starts = (n for n in range(len(whole)) if own and whole[n : n + len(own)] == own)
    start = next(starts, None)
    return ([], []) if start is None else (whole[:start], whole[start + len(own) :])


def _without_beginning(whole: list[int], own: list[int]) -> list[int]:
    """The tokens of a text from its own first one on; its own alone where it has others with what
    the tokenizer adds."""
    added = len(whole) - len(own)
    starts = (n for n in range(added + 1) if whole[n : n + len(own)] == own)
    return whole[start:] if own and (start := next(starts, None)) is not None else own


def rest_begins(text: str, share: float) -> int:
    """Where the words after the first share of them begin, in characters; 0 where there are none
    on one of the sides."""
    words = list(re.finditer(r"\S+", text))
    first = int(share * len(words))
    return words[first].start() if 0 < first < len(words) else 0
