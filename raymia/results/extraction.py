"""Extraction: records that a checkpoint writes on, word for word, when it is given their beginning.

Of members and of non-members, because texts that many people know are written on by a model that
was not trained on these records (Carlini et al. 2023, arXiv 2202.07646, count 50 tokens).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from raymia.metrics.held_out import rate
from raymia.metrics.summary import Rate, Result


class Extraction(Result):
    """How many records a checkpoint writes on."""

    target: str = Field(description="name of the checkpoint under audit")
    words: int = Field(ge=1, description="words that a sample has to share with the record's rest")
    members: Rate | None = Field(
        description="of those whose rest has so many words and that were sampled; none without any"
    )
    non_members: Rate | None = Field(description="the same of non-members")


def extraction(
    records: Iterable[tuple[bool | None, str, Sequence[tuple[int, str]]]],
    *,
    target: str,
    words: int,
    confidence: float,
) -> Extraction:
    """Count the records that a checkpoint writes on.

    Parameters
    ----------
    records : membership, text, and what was written, each with the place in the text where it
        begins.
    """
    found: dict[bool, list[bool]] = {True: [], False: []}
    for is_member, text, samples in records:
        written_on = _is_written_on(text, samples, words)
        if is_member is not None and written_on is not None:
            found[is_member].append(written_on)
    return Extraction(
        target=target,
        words=words,
        members=_share(found[True], confidence),
        non_members=_share(found[False], confidence),
    )


def _is_written_on(text: str, samples: Sequence[tuple[int, str]], words: int) -> bool | None:
    """Whether any sample goes on as the text does; None where the text is too short to tell."""
    if not samples:
        return None
    rest = text[samples[0][0] :].split()[:words]
    if len(rest) < words:
        return None
    return any(sample.split()[:words] == rest for _, sample in samples)


def _share(written_on: Sequence[bool], confidence: float) -> Rate | None:
    return rate(sum(written_on), len(written_on), confidence) if written_on else None
