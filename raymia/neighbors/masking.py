"""Choosing the spans of a text that a neighbor replaces."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"\S+")
Span = tuple[int, int]
"""Start and end of a stretch of characters."""

PLACEMENT_TRIES = 50


@dataclass(frozen=True)
class MaskedWindow:
    """A stretch of a text and the spans in it that are to be replaced.

    Attributes
    ----------
    start, end : the window's characters within the text.
    spans : masked stretches, ascending, as positions in the whole text.
    units : masked units in all, which bounds how long a fill may be.
    """

    start: int
    end: int
    spans: tuple[Span, ...]
    units: int


def word_units(text: str) -> list[Span]:
    """The words of a text: runs of characters that are not white space."""
    return [match.span() for match in _WORD.finditer(text)]


def choose_spans(
    units: int, share: float, span: int, buffer: int, draws: np.random.Generator
) -> list[int]:
    """Draw where masked spans start among ``units`` units, ascending.

    ``int(share * units / (span + 2 * buffer))`` spans, at least one, are placed one after another
    at random with at least ``buffer`` unmasked units between them (DetectGPT's masking, which
    SPV-MIA's code uses with share .3, span 2, buffer 1). Fewer are placed where they find no room;
    none where the text has fewer units than a span.
    """
    wanted = max(1, int(share * units / (span + 2 * buffer)))
    taken = np.zeros(units, dtype=bool)
    starts: list[int] = []
    for _ in range(wanted * PLACEMENT_TRIES):
        if len(starts) == wanted or units < span:
            break
        start = int(draws.integers(0, units - span + 1))
        if not taken[max(0, start - buffer) : start + span + buffer].any():
            taken[start : start + span] = True
            starts.append(start)
    return sorted(starts)


def mask_text(
    text: str,
    units: list[Span],
    *,
    share: float,
    span: int,
    buffer: int,
    window: int,
    draws: np.random.Generator,
) -> list[MaskedWindow]:
    """Mask a text window by window; adjoining masked spans become one.

    Parameters
    ----------
    units : the words or tokens that spans are made of, as character spans.
    window : most units per window, so that a long text stays within what a T5 was trained on.
    """
    windows = []
    for first in range(0, len(units), window):
        inside = units[first : first + window]
        starts = choose_spans(len(inside), share, span, buffer, draws)
        spans: list[Span] = []
        for start in starts:
            begin, end = inside[start][0], inside[start + span - 1][1]
            if spans and not text[spans[-1][1] : begin].strip():
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((begin, end))
        windows.append(MaskedWindow(inside[0][0], inside[-1][1], tuple(spans), len(starts) * span))
    return windows


def replace_spans(text: str, replacements: list[tuple[Span, str]]) -> str:
    """Put each replacement in the place of its span; everything else stays as it is."""
    parts, position = [], 0
    for (begin, end), fill in sorted(replacements):
        parts += [text[position:begin], fill]
        position = end
    return "".join([*parts, text[position:]])
