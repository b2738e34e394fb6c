"""How many tokens records have for a model; no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from raymia.models.causal.rendering import reader_for
from raymia.models.causal.resolver import CausalCheckpoint
from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.tokenizers import tokenizer_of
from raymia.records.base import count_reasons
from raymia.records.conversations import beginning
from raymia.util.listing import listed
from raymia.util.pieces import pieces

SAMPLE = 500
"""Records that are counted, at least; spread evenly over all."""
COUNTED = 100_000
"""Characters of a text that are cut into tokens; the rest counts as these do."""


class Counted(NamedTuple):
    """Tokens of each text, and why those that cannot be asked about cannot."""

    tokens: list[int]
    reasons: list[str]


class TokenCounts:
    """Mean tokens per record, of many models; a tokenizer that they share is loaded once.

    Parameters
    ----------
    texts : strings [records].
    """

    def __init__(self, texts: pa.ChunkedArray) -> None:
        step = max(1, len(texts) // SAMPLE)
        self._sample = [texts[i].as_py() for i in range(0, len(texts), step)]
        self._known: dict[tuple[Any, ...], Counted] = {}

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
        lengths, limit = self._counted(checkpoint).tokens, checkpoint.context
        if limit is not None and checkpoint.long_texts != "windows":
            lengths = [min(length, limit) for length in lengths]
        return sum(lengths) / len(lengths)

    def unanswered(self, checkpoints: Mapping[str, AnyCheckpoint]) -> list[str]:
        """Of which records in the sample nothing can be had from which model, and why."""
        names: dict[tuple[str, ...], list[str]] = {}
        for name, checkpoint in checkpoints.items():
            if isinstance(checkpoint, CausalCheckpoint):
                names.setdefault(tuple(self._counted(checkpoint).reasons), []).append(name)
        return [
            f"of {len(self._sample):,} records that were looked at, {len(reasons):,} will have no "
            f"answer from {listed(models)}: "
            + listed([f"{times:,} x {why}" for why, times in count_reasons(reasons).items()])
            for reasons, models in names.items()
            if reasons
        ]

    def _counted(self, checkpoint: CausalCheckpoint) -> Counted:
        # By content, so that copies of a tokenizer are loaded once, and other files anew.
        content = checkpoint.facts.tokenizer, checkpoint.trust_remote_code, checkpoint.training
        if content not in self._known:
            self._known[content] = count_tokens(checkpoint, self._sample)
        return self._known[content]


def count_tokens(checkpoint: CausalCheckpoint, texts: list[str]) -> Counted:
    """Tokens of each text, uncut; of one that is longer than what is counted, in proportion.

    Raises
    ------
    InputError
        If transformers cannot load the tokenizer.
    """
    reader = reader_for(tokenizer_of(checkpoint), checkpoint.training)
    is_text = checkpoint.training is None
    begun = [text[:COUNTED] if is_text else beginning(text, COUNTED) for text in texts]
    read = [record for piece in pieces(begun) for record in reader.read(piece)]
    looked_at = list(zip(read, texts, begun, strict=True))
    return Counted(
        [round(len(one.ids) * len(text) / len(part)) for one, text, part in looked_at],
        # What is wrong with the beginning of a text need not be wrong with the whole.
        [one.error for one, text, part in looked_at if one.error is not None and part == text],
    )
