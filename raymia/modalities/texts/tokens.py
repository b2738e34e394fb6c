"""How many tokens the texts of an audit have for a model, before it is loaded."""

from __future__ import annotations

import pyarrow as pa

from raymia.models.checkpoint import AnyCheckpoint
from raymia.models.source import Checkpoint
from raymia.util.errors import InputError

TOKEN_SAMPLE = 500


def tokens_per_record(checkpoint: AnyCheckpoint, texts: pa.ChunkedArray) -> float | None:
    """Mean tokens per record, cut to the model's limit, from a sample; loads no model.

    None for an endpoint, whose tokenizer is not known.
    """
    if not isinstance(checkpoint, Checkpoint):
        return None
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
    limits = [checkpoint.max_tokens, context_length(config)]
    limit = min((n for n in limits if n is not None), default=None)
    if checkpoint.long_texts == "windows":
        limit = None
    step = max(1, len(texts) // TOKEN_SAMPLE)
    sample = [texts[i].as_py() for i in range(0, len(texts), step)]
    lengths = [len(ids[:limit]) for ids in tokenizer(sample, verbose=False)["input_ids"]]
    return sum(lengths) / len(lengths)
