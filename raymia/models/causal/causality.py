"""Whether a model that is asked as a causal one is one: a token must change nothing that was said
before it, and neither may padding and the texts beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from raymia.models.batching import is_lost_device, is_out_of_memory
from raymia.util.errors import InputError, first_line

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
        Saying by how much, or why it cannot be tried.
    """
    length = min(LENGTH, model.max_tokens or LENGTH)
    texts = torch.arange(FIRST, FIRST + length, device=model.device).repeat(2, 1)
    texts[1, -1] += 1
    texts %= model.rows
    try:
        said = [model.head.logits(_earlier(model, text[None])) for text in texts]
    except Exception as error:  # of any kind, by what the config says
        if is_out_of_memory(error) or is_lost_device(error):
            raise
        raise InputError(
            f"{label}: {length} tokens cannot be run through it ({first_line(error)}), so it is "
            "not known whether it sees the tokens that it should predict; run a text through it "
            "with transformers, which should say what is wrong with the checkpoint"
        ) from error
    moved, largest, is_more = _moved(model, *said, is_quantized=is_quantized)
    if is_more:
        raise InputError(
            f"{label}: this is no causal language model: with another last token, logits of tokens "
            f"before it change by up to {moved:.2g} (the largest is {largest:.2g}), so it sees the "
            "tokens that it should predict"
        )


@torch.inference_mode()
def changes_beside_others(model: CausalLM, *, is_quantized: bool) -> bool:
    """Whether a model says other things of a text that is padded beside a longer one, so that it is
    to be asked one text at a time.

    Of weights of less precision it is not tried: there rounding alone may choose another expert.
    """
    length = min(LENGTH, model.max_tokens or LENGTH)
    short = length // 2
    if is_quantized or short < 1 or dtype_of(model) not in TOLERANCE:
        return False
    texts = torch.arange(FIRST, FIRST + length, device=model.device).repeat(2, 1)
    texts %= model.rows
    mask = torch.ones_like(texts)
    texts[0, short:], mask[0, short:] = 0, 0
    try:
        beside = model.head.hidden(mask, input_ids=texts)[:1, :short]
        alone = model.head.hidden(mask[:1, :short], input_ids=texts[:1, :short])
        said = [model.head.logits(states) for states in (alone, beside)]
    except Exception as error:  # of any kind, by what the config says
        if is_out_of_memory(error) or is_lost_device(error):
            raise
        return True  # alone they were run before
    return _moved(model, *said, is_quantized=is_quantized)[2]


def dtype_of(model: CausalLM) -> torch.dtype:
    """The type of the embeddings, which quantization leaves as it is."""
    dtype: torch.dtype = model.model.get_input_embeddings().weight.dtype
    return dtype


def _moved(
    model: CausalLM, one: torch.Tensor, other: torch.Tensor, *, is_quantized: bool
) -> tuple[float, float, bool]:
    """By how much logits differ, the largest of them, and whether that is more than rounding."""
    moved, largest = float((one - other).abs().max()), float(one.abs().max())
    share = QUANTIZED if is_quantized else TOLERANCE.get(dtype_of(model), COARSE)
    # Of weights that are not finite, it is not.
    return moved, largest, moved > share * max(largest, 1e-6)


def _earlier(model: CausalLM, text: torch.Tensor) -> torch.Tensor:
    return model.head.hidden(torch.ones_like(text), input_ids=text)[:, :-1]
