"""Token ids that have no embedding, found before a GPU does: it ends the process over them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from raymia.util.reasons import CAME


def unknown_token(tokens: Sequence[int], rows: int, tokenizer: Any) -> str | None:
    """Say which token of a text is not among a model's embeddings; None where all are.

    Parameters
    ----------
    rows : of the embedding.
    """
    largest = max(tokens, default=0)
    if largest < rows:
        return None
    return (
        f"it has a token for which the model, which has {rows:,} embeddings, has none{CAME}"
        f"{largest} ({tokenizer.decode([largest])!r})"
    )


def refuse_unknown(texts: Iterable[Sequence[int]], rows: int, tokenizer: Any) -> None:
    """Refuse texts of which one has a token that is not among a model's embeddings.

    Raises
    ------
    IndexError
        Naming the token.
    """
    for tokens in texts:
        said = unknown_token(tokens, rows, tokenizer)
        if said is not None:
            raise IndexError(said)


def up_to_end(tokens: Sequence[int], ends: Collection[int]) -> int:
    """How many tokens stand before the first that ends a text."""
    return next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
