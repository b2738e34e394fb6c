"""Many texts a few at a time, so that what is made of them is never held for all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

CHARACTERS = 2**20
"""What is cut into tokens at once; a tokenizer holds some 200 bytes for each."""


def pieces(texts: Iterable[str], characters: int = CHARACTERS) -> Iterator[list[str]]:
    """The texts in order, in lists of no more characters than that, but of one text at least.

    Examples
    --------
    >>> list(pieces(["ab", "c", "defg", "h"], 3))
    [['ab', 'c'], ['defg'], ['h']]
    """
    piece: list[str] = []
    size = 0
    for text in texts:
        if piece and size + len(text) > characters:
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    if piece:
        yield piece
