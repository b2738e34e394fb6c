"""Texts longer than a model's context, read in overlapping windows.

A text of 10 tokens, a context of 6 and a stride of 3; what each window scores is in brackets::

    t0 [t1 t2 t3 t4 t5]
             t3 t4 t5 [t6 t7 t8]
                t4 t5 t6 t7 t8 [t9]
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Tokens ``start`` to ``end`` of a text, of which those from ``scored_from`` are scored; after
    ``lead`` tokens that begin a text."""

    start: int
    end: int
    scored_from: int
    lead: int = 0


def windows(length: int, context: int, stride: int, lead: int = 0) -> list[Window]:
    """Cover a text so that each token but the first is scored once.

    After the first window a token has at least ``context - stride`` tokens before it in its window,
    those that lead it among them.

    Parameters
    ----------
    length : tokens of the text, more than ``context``.
    context : tokens per window.
    stride : how many tokens a window scores that the one before did not read; from 1 to
        ``context - lead - 1``.
    lead : tokens that each window after the first begins with, and that are none of the text.
    """
    found = [Window(0, context, 0)]
    while (scored := found[-1].end) < length:
        end = min(scored + stride, length)
        found.append(Window(end - (context - lead), end, scored, lead))
    return found
