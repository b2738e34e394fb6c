"""What a reader should know of references that were made, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raymia.results.result import ReferenceCard
from raymia.results.wording import percent

OFTEN = 0.3
"""Of what was written, from which on a reader is told."""
RECITED = 0.05
"""Of the n-grams that were written, likewise."""

SAID = (
    ("written_repeats_itself", OFTEN, "repeats itself in {} of what it wrote for {}"),
    ("written_almost_twice", OFTEN, "wrote {} of the texts for {} more than once, or nearly"),
    (
        "answers_begin_alike",
        OFTEN,
        "begins {} of its answers for {} with the same three words, as where it refuses",
    ),
    (
        "ngrams_shared_with_members",
        RECITED,
        "recites members: {} of the n-grams that it wrote for {} stand in one, and the reference "
        "has learned them, so that attacks with it find less",
    ),
)
"""A fact, from which share on it is said, and how."""


def reference_lines(cards: Iterable[ReferenceCard]) -> Iterator[str]:
    """Say which targets refused, repeated themselves or recited members when they wrote texts."""
    for card in cards:
        for name, share, said in SAID:
            value = card.facts.get(name)
            if isinstance(value, float) and value >= share:
                rest = "" if name == SAID[-1][0] else "; a reference made of that knows little else"
                yield f"{card.target} {said.format(percent(value, 0), card.name)}{rest}"
