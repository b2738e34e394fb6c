"""How many tokens records have for a model; no model is loaded."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from raymia.models.causal.rendering import reader_for
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.checkpoint import AnyCheckpoint
from raymia.records.conversations import beginning
from raymia.util.pieces import pieces

SAMPLE = 500
"""Records that are counted, at least; spread evenly over all."""
COUNTED = 100_000
"""Characters of a text that are cut into tokens; the rest counts as these do."""


class TokenCounts:
    """Mean tokens per record, of many models; a tokenizer that they share is loaded once.

    Parameters
    ----------
    texts : strings [records].
    """

    def __init__(self, texts: pa.ChunkedArray) -> None:
        step = max(1, len(texts) // SAMPLE)
        self._sample = [texts[i].as_py() for i in range(0, len(texts), step)]
        self._known: dict[tuple[Any, ...], list[int]] = {}

    def per_record(self, checkpoint: AnyCheckpoint) -> float | None:
        """The mean over a sample of the records, each cut to the model's limit.

        None for an endpoint, whose tokenizer is not known.

        Raises
        ------
        InputError
            If transformers cannot load the tokenizer.
        """
        if not isinstance(checkpoint, CausalCheckpoint):
            return None
        # By content, so that copies of a tokenizer are loaded once, and other files anew.
        content = checkpoint.facts.tokenizer, checkpoint.trust_remote_code, checkpoint.training
        if content not in self._known:
            self._known[content] = count_tokens(checkpoint, self._sample)
        lengths, limit = self._known[content], checkpoint.context
        if limit is not None and checkpoint.long_texts != "windows":
            lengths = [min(length, limit) for length in lengths]
        return sum(lengths) / len(lengths)


def count_tokens(checkpoint: CausalCheckpoint, texts: list[str]) -> list[int]:
    """Tokens of each text, uncut; of one that is longer than what is counted, in proportion.

    Raises
    ------
    InputError
        If transformers cannot load the tokenizer.
    """
    reader = reader_for(checkpoint.tokenizer_source.load(), checkpoint.training)
    is_text = checkpoint.training is None
    begun = [text[:COUNTED] if is_text else beginning(text, COUNTED) for text in texts]
    counts = [len(record.ids) for piece in pieces(begun) for record in reader.read(piece)]
    return [
        round(count * len(text) / len(part))
        for count, text, part in zip(counts, texts, begun, strict=True)
    ]
