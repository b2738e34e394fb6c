"""How many tokens records have for a model; no model is loaded."""

from __future__ import annotations

import pyarrow as pa

from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.source import Checkpoint
from raymia.util.errors import InputError

SAMPLE = 500
"""Records that are counted, at least; spread evenly over all."""


class TokenCounts:
    """Mean tokens per record, of many models; a tokenizer that they share is loaded once.

    Parameters
    ----------
    texts : strings [records].
    """

    def __init__(self, texts: pa.ChunkedArray) -> None:
        step = max(1, len(texts) // SAMPLE)
        self._sample = [texts[i].as_py() for i in range(0, len(texts), step)]
        self._known: dict[tuple[str, bool], tuple[list[int], int | None]] = {}

    def per_record(self, checkpoint: AnyCheckpoint) -> float | None:
        """The mean over a sample of the records, each cut to the model's limit.

        None for an endpoint, whose tokenizer is not known.

        Raises
        ------
        InputError
            If transformers cannot load the tokenizer or the config.
        """
        if not isinstance(checkpoint, Checkpoint):
            return None
        lengths, context = self._lengths(checkpoint)
        limits = [n for n in (checkpoint.max_tokens, context) if n is not None]
        if limits and checkpoint.long_texts != "windows":
            lengths = [min(length, *limits) for length in lengths]
        return sum(lengths) / len(lengths)

    def _lengths(self, checkpoint: Checkpoint) -> tuple[list[int], int | None]:
        """Tokens of the sample, and the model's context."""
        # By content, so that copies of a tokenizer are loaded once, and other files anew.
        content = checkpoint.tokenizer, checkpoint.trust_remote_code
        if not checkpoint.tokenizer:
            return count_tokens(checkpoint, self._sample)
        if content not in self._known:
            self._known[content] = count_tokens(checkpoint, self._sample)
        return self._known[content]


def count_tokens(checkpoint: Checkpoint, texts: list[str]) -> tuple[list[int], int | None]:
    """Tokens of each text, uncut, and the model's context where it has one.

    Raises
    ------
    InputError
        If transformers cannot load the tokenizer or the config.
    """
    from transformers import AutoConfig, AutoTokenizer

    from raymia.models.causal.model import context_length

    source = {"trust_remote_code": checkpoint.trust_remote_code, **checkpoint.gguf}
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, **source)
        config = AutoConfig.from_pretrained(checkpoint.path, **source)
    except Exception as error:  # of any kind, by what is damaged or unknown
        why = str(error).split("\n", 1)[0] or type(error).__name__
        raise InputError(
            f"{checkpoint.path}: transformers cannot load its tokenizer and config "
            f"({type(error).__name__}: {why}); copy the files again, or update transformers"
        ) from error
    lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    return lengths, context_length(config)
