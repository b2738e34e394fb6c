"""A self-prompt reference of the shipped base, small enough to be made in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import BASE, checkpoint, passages

from raymia.evidence.store import EvidenceStore
from raymia.models.causal.training import Training
from raymia.models.endpoints.writing import Server
from raymia.prepare.self_prompt import SelfPromptRecipe, make_reference, stored_texts
from raymia.spec import SelfPromptReference

PROMPTS = tuple(passages(5))


def small_recipe(
    training: Training | None = None, server: Server | None = None, **settings: Any
) -> SelfPromptRecipe:
    """Eight texts of 24 tokens, four side by side; ``prompts="none"`` for those that the target
    writes itself."""
    known = checkpoint(BASE, training=training).with_fingerprint()
    tuning = {"epochs": 1, "batch_size": 4, "max_tokens": 48, "learning_rate": 1e-3}
    spec = SelfPromptReference(
        **{
            "kind": "self_prompt", "prompts": "p.jsonl", "texts": 8, "prompt_tokens": 4,
            "max_tokens": 24, "fine_tune": tuning, "generation_batch": 4, **settings,
        }
    )  # fmt: skip
    prompts = PROMPTS if spec.prompts != "none" else ()
    return SelfPromptRecipe(known, known, spec, prompts, 0, server=server)


def made(recipe: SelfPromptRecipe, folder: Path | str) -> list[str]:
    """The texts of a reference that is made in a store."""
    store = EvidenceStore(str(folder))
    make_reference(
        recipe, store, batch_tokens=512, on_texts=lambda *_: None, on_steps=lambda *_: None
    )
    texts = stored_texts(recipe, store)
    assert texts is not None
    return texts
