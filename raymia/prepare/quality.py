"""How well a reference knows the domain, and what it still knows beside: perplexities on texts that
no member is among."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from raymia.models.causal.family import load_causal_lm
from raymia.models.causal.model import CausalLM
from raymia.models.causal.reading import PlainReader
from raymia.prepare.fine_tune import MAX_MEASURED

if TYPE_CHECKING:
    from raymia.prepare.self_prompt import SelfPromptRecipe

GENERAL = "demo/assets/text/kjv.parquet"
"""The King James Bible: general text that comes with raymia."""
GENERAL_TEXTS = 64

Facts = dict[str, float]


def general_texts() -> list[str]:
    """Passages from all of the Bible; no model that comes with raymia was trained on them."""
    with resources.as_file(resources.files("raymia") / GENERAL) as file:
        held_out: list[str] = pq.read_table(file)["text"].to_pylist()[9::10]
    return held_out[:: len(held_out) // GENERAL_TEXTS][:GENERAL_TEXTS]


def perplexities(model: CausalLM, recipe: SelfPromptRecipe, whose: str = "") -> Facts:
    """Perplexities of a model on the domain, which the prompts are from, and on general text.

    The domain's is left out where the target wrote the prompts itself, and where no prompt has a
    token that the target was not shown.

    Parameters
    ----------
    whose : the beginning of each fact's name.
    """
    plain = PlainReader(model.tokenizer)
    general = model.answer(general_texts(), moments=False, reader=plain)
    found = {
        "domain_text": _on_domain(model, recipe),
        "general_text": _perplexity([answer.log_prob for answer in general]),
    }
    return {
        f"{whose}perplexity_on_{what}": value for what, value in found.items() if value is not None
    }


def reference_perplexities(recipe: SelfPromptRecipe, folder: Path, batch_tokens: int) -> Facts:
    """Those of a reference that was trained into a folder, and of its base."""
    found: Facts = {}
    for whose, checkpoint in (("base_", recipe.base), ("", recipe.trained(folder))):
        model = load_causal_lm(checkpoint, batch_tokens=batch_tokens)
        found |= perplexities(model, recipe, whose)
        del model
    return found


def _on_domain(model: CausalLM, recipe: SelfPromptRecipe) -> float | None:
    """On the part of the prompts that the target was not shown, and so wrote otherwise: the answers
    of conversations, and what follows the first tokens of a text."""
    training = recipe.target.training
    is_text = training is None or training.format == "text"
    shown = recipe.spec.prompt_tokens - 1 if is_text else 0  # the first is never scored
    answers = model.answer(list(recipe.prompts[:MAX_MEASURED]), moments=False)
    return _perplexity([answer.log_prob[shown:] for answer in answers])


def _perplexity(log_probs: Sequence[npt.NDArray[np.float32]]) -> float | None:
    tokens = np.concatenate(log_probs) if log_probs else np.zeros(0, np.float32)
    if not len(tokens):
        return None
    with np.errstate(over="ignore"):
        return round(float(np.exp(-tokens.mean(dtype=np.float64))), 2)
