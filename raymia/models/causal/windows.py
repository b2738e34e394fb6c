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
    """Tokens ``start`` to ``end`` of a text, of which those from ``scored_from`` are scored."""

    start: int
    end: int
    scored_from: int


def windows(length: int, context: int, stride: int) -> list[Window]:
    """Cover a text so that each token but the first is scored once.

    After the first window a token has at least ``context - stride`` tokens before it in its window.

    Parameters
    ----------
    length : tokens of the text, more than ``context``.
    context : tokens per window.
    stride : how many tokens a window scores that the one before did not read; from 1 to
        ``context - 1``.
    """
    found = [Window(0, context, 0)]
    while (scored := found[-1].end) < length:
        end = min(scored + stride, length)
        found.append(Window(end - context, end, scored))
    return found
