"""Text that is not UTF-8, and may be read as if it were: UTF-16 of ASCII is UTF-8 with NULs."""

from __future__ import annotations

import numpy as np

LOOKED_AT = 4096
"""Bytes that show how a file is encoded."""
SHARE = 0.01
"""Of zeros that are a half of a character, among all bytes; spaces and ends of lines are of them
whatever the script."""
MARKS = (  # that of UTF-16 is the beginning of that of UTF-32
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def other_encoding(content: bytes) -> str | None:
    """The encoding of a text, by its mark or, without one, by where its zeros are.

    Returns
    -------
    UTF-16 or UTF-32; None for what seems to be neither.

    Examples
    --------
    >>> other_encoding("a b".encode("utf-16-le")), other_encoding(b"a b")
    ('UTF-16', None)
    """
    start = content[:LOOKED_AT]
    for mark, name in MARKS:
        if start.startswith(mark):
            return name
    zeros = np.flatnonzero(np.frombuffer(start, np.uint8) == 0)
    if len(zeros) < max(2, SHARE * len(start)):
        return None
    if len(zeros) > len(start) / 2:
        return "UTF-32"
    return "UTF-16" if len(np.unique(zeros % 2)) == 1 else None


def why_not_utf8(content: bytes) -> str | None:
    """What is to be said of a text in UTF-16 or UTF-32; None for any other."""
    name = other_encoding(content)
    return None if name is None else f"it is {name} text; save it as UTF-8"


def printable(text: str) -> str:
    r"""A text with a question mark for each byte of a file's name that is no Unicode, which no file
    of UTF-8 can hold.

    Examples
    --------
    >>> printable("caf\udce9.jsonl")
    'caf?.jsonl'
    """
    return text.encode(errors="replace").decode()
