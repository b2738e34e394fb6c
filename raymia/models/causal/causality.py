"""Whether a model that is asked as a causal one is one: a token must change nothing that was said
before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raymia.util.errors import InputError

if TYPE_CHECKING:
    from raymia.models.causal.model import CausalLM

LENGTH = 12
"""Tokens of the text that is tried."""
FIRST = 4
"""Its first token; those before it are special in most vocabularies."""
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
"""Of the largest logit, by the type of the weights: the same operations in the same order differ by
rounding alone."""
COARSE = 1e-2
"""The same for types of less precision."""
QUANTIZED = 5e-2
"""The same for weights that may be rounded by what stands beside a token."""


@torch.inference_mode()
def refuse_looking_ahead(model: CausalLM, label: str, *, is_quantized: bool) -> None:
    """Change the last token of a text, and refuse a model whose earlier logits move.

    Parameters
    ----------
    label : of the checkpoint, for the message.

    Raises
    ------
    InputError
        Saying by how much.
    """
    embedding = model.model.get_input_embeddings().weight
    length = min(LENGTH, model.max_tokens or LENGTH)
    texts = torch.arange(FIRST, FIRST + length, device=model.device).repeat(2, 1)
    texts[1, -1] += 1
    texts %= embedding.shape[0]
    try:
        said = [model.head.logits(_earlier(model, text[None])) for text in texts]
    except RuntimeError:  # what cannot be run says so where it is asked
        return
    moved = float((said[0] - said[1]).abs().max())
    largest = float(said[0].abs().max())
    share = QUANTIZED if is_quantized else TOLERANCE.get(embedding.dtype, COARSE)
    if moved > share * max(largest, 1e-6):  # of weights that are not finite, it is not
        raise InputError(
            f"{label}: this is no causal language model: with another last token, logits of tokens "
            f"before it change by up to {moved:.2g} (the largest is {largest:.2g}), so it sees the "
            "tokens that it should predict"
        )


def _earlier(model: CausalLM, text: torch.Tensor) -> torch.Tensor:
    return model.head.hidden(torch.ones_like(text), input_ids=text)[:, :-1]
