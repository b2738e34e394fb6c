"""Records token by token, for a person to read: what was scored, what was not, what was cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from raymia.models.causal.reading import Rendered
from raymia.models.causal.rendering import TrainedReader
from raymia.models.causal.training import Training
from raymia.results.text_result import TextPiece

BEFORE = 4
"""Tokens that a token is decoded after: some tokenizers leave out a space at the beginning."""
BROKEN = "\ufffd"
"""What a part of a character is decoded as."""
LONGEST_CHARACTER = 8
"""Tokens."""


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token, so that all together are the text; a character of several tokens
    stands with its last."""

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    found: list[str] = []
    start = 0
    for place in range(len(ids)):
        before = decode(ids[max(0, start - BEFORE) : start])
        text = decode(ids[max(0, start - BEFORE) : place + 1])[len(before) :]
        if text.endswith(BROKEN) and place - start < LONGEST_CHARACTER and place + 1 < len(ids):
            found.append("")
            continue
        found.append(text)
        start = place + 1
    return found


def rendered_whole(tokenizer: Any, training: Training, payload: str) -> tuple[Rendered, list[int]]:
    """A record as the training read it, and the tokens that it cut off."""
    rendered = TrainedReader(tokenizer, training).read([payload])[0]
    if not rendered.truncated:
        return rendered, []
    uncut = TrainedReader(tokenizer, replace(training, max_length=None)).read([payload])[0].ids
    kept = len(rendered.ids)
    return rendered, uncut[kept:] if training.truncate == "end" else uncut[: len(uncut) - kept]


def pieces_of(
    tokenizer: Any,
    training: Training,
    payload: str,
    log_prob: Sequence[float | None] = (),
    typical: Sequence[float | None] = (),
) -> list[TextPiece]:
    """A record cut into the tokens that were scored and the texts between them.

    Parameters
    ----------
    log_prob, typical : of the scored tokens, as far as they are known.
    """
    rendered, cut = rendered_whole(tokenizer, training, payload)
    scored = rendered.scored if rendered.scored is not None else np.zeros(len(rendered.ids), bool)
    own = list(_pieces(token_texts(tokenizer, rendered.ids), scored.tolist(), log_prob, typical))
    rest = [TextPiece(text="".join(token_texts(tokenizer, cut)), part="cut")] if cut else []
    found = [*own, *rest] if training.truncate == "end" else [*rest, *own]
    return list(_with_turns(found, *TrainedReader(tokenizer, training).turns(payload)))


def _with_turns(
    pieces: Sequence[TextPiece], text: str, turns: Sequence[tuple[int, str]]
) -> Iterator[TextPiece]:
    """Pieces with the roles of the turns that begin with them; those that are not one token are
    cut there. As they are where they do not make up the text."""
    starts = dict(turns) if "".join(piece.text for piece in pieces) == text else {}
    at = 0
    for piece in pieces:
        end = at + len(piece.text)
        within = [start for start in starts if at < start < end and piece.log_prob is None]
        for start, stop in pairwise([at, *within, end]):
            words = text[start:stop] if starts else piece.text
            yield piece.model_copy(update={"text": words, "turn": starts.get(start)})
        at = end


def _pieces(
    texts: Sequence[str],
    scored: Sequence[bool],
    log_prob: Sequence[float | None],
    typical: Sequence[float | None],
) -> Iterator[TextPiece]:
    values = iter(zip(log_prob, typical or [None] * len(log_prob), strict=False))
    for is_scored, run in groupby(zip(texts, scored, strict=True), key=lambda pair: pair[1]):
        if not is_scored:
            yield TextPiece(text="".join(text for text, _ in run), part="context")
            continue
        for text, _ in run:
            own, usual = next(values, (None, None))
            yield TextPiece(text=text, log_prob=own, typical=usual)
