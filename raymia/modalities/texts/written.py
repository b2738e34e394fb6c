"""What a target wrote for a reference, beside the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.prepare.recipe import Recipe
from raymia.prepare.self_prompt import SelfPromptRecipe, stored_texts
from raymia.shift.overlap import ngram_overlap

if TYPE_CHECKING:
    from raymia.modalities.texts.modality import Texts

LOOKED_AT = 2_000
"""Members, and texts that were written, at most."""
DIGITS = 4


def shared_with_members(
    texts: Texts, inputs: Inputs, store: EvidenceStore, recipe: Recipe
) -> Mapping[str, float]:
    """Which share of the n-grams of what was written stands in a member, word for word: what the
    target recites would be learned by the reference, too."""
    if not isinstance(recipe, SelfPromptRecipe):
        return {}
    written = stored_texts(recipe, store)
    table = inputs.records.table
    members = table.filter(pc.equal(table["is_member"], True))["payload"].slice(0, LOOKED_AT)
    if not written or not len(members):
        return {}
    texts = replace(texts, training=recipe.target.training)
    own = [texts.text(payload) for payload in written[:LOOKED_AT]]
    known = [texts.text(payload) for payload in members.to_pylist()]
    share = ngram_overlap(known, own, [str(n) for n in range(len(own))]).mean_share
    return {} if share is None else {"ngrams_shared_with_members": round(share, DIGITS)}
