"""How much a causal language model would learn from a text: the norm of the loss's gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raymia.models.batching import is_out_of_memory
from raymia.models.causal.model import CausalLM
from raymia.models.causal.reading import Rendered
from raymia.util.errors import RaymiaError


@dataclass(frozen=True)
class GradientAnswer:
    """Norms of the gradient of a text's mean loss.

    Attributes
    ----------
    l2, largest : mean over the parameter tensors of the L2 norm and of the largest absolute entry;
        None for a text without a token that has a context.
    truncated : whether the text was longer than the model's limit.
    error : why the record cannot be read; None where it can.
    """

    l2: float | None
    largest: float | None
    truncated: bool
    error: str | None = None


def gradient_norms(model: CausalLM, texts: Sequence[str]) -> list[GradientAnswer]:
    """Ask for the gradient norms of each text, one text per pass, over all floating weights.

    Raises
    ------
    RaymiaError
        If the gradient of one text does not fit into memory.
    """
    weights = [weight for weight in model.model.parameters() if weight.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    try:
        records = model.read(texts)
        return [_norms(model, weights, record) for record in records]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RaymiaError(
            "out of memory for the gradient of one text; leave out `grad_norm`, or give the "
            "target a larger device or a smaller max_tokens"
        ) from error
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def _norms(model: CausalLM, weights: list[torch.nn.Parameter], record: Rendered) -> GradientAnswer:
    tokens = record.ids[: model.max_tokens]
    truncated = len(record.ids) > len(tokens)
    wanted = None if record.scored is None else record.scored[1 : len(tokens)]
    if len(tokens) < 2 or (wanted is not None and not wanted.any()):
        return GradientAnswer(None, None, truncated, record.error)
    ids = torch.tensor([tokens], device=model.device)
    hidden = model.head.hidden(torch.ones_like(ids), input_ids=ids)[0, :-1]
    labels = ids[0, 1:]
    if wanted is not None:
        chosen = torch.from_numpy(wanted).to(model.device)
        hidden, labels = hidden[chosen], labels[chosen]
    loss = torch.nn.functional.cross_entropy(model.head.logits(hidden), labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    used = [gradient.detach().float() for gradient in gradients if gradient is not None]
    l2 = torch.stack([gradient.norm() for gradient in used]).mean()
    largest = torch.stack([gradient.abs().max() for gradient in used]).mean()
    return GradientAnswer(float(l2), float(largest), truncated)
