"""What a target wrote for a reference, beside the records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from raymia.evidence.store import EvidenceStore
from raymia.inputs.base import Inputs
from raymia.prepare.recipe import Recipe
from raymia.prepare.self_prompt import SelfPromptRecipe, stored_texts
from raymia.shift.alike import commonest_beginning, repetition, separation_auc
from raymia.shift.copies import copied_texts
from raymia.shift.overlap import ngram_overlap

if TYPE_CHECKING:
    from raymia.modalities.texts.modality import Texts

LOOKED_AT = 2_000
"""Members, and texts that were written, at most."""
COMPARED = 300
"""Texts of each kind that are told apart, at most."""
HALF = 0.5
"""Of a text's words in fours that stood in it before: then it repeats itself."""
DIGITS = 4


def facts_of_written(
    texts: Texts, inputs: Inputs, store: EvidenceStore, recipe: Recipe, facts: Mapping[str, Any]
) -> Mapping[str, float]:
    """The quality of what was written: its perplexity, what the target recites of members, which
    the reference would learn, too, how well it is told from non-members, and how often the target
    repeats itself.

    Parameters
    ----------
    facts : of the reference's training.
    """
    if not isinstance(recipe, SelfPromptRecipe):
        return {}
    written = (stored_texts(recipe, store) or [])[:LOOKED_AT]
    if not written:
        return {}
    table = inputs.records.table
    texts = replace(texts, training=recipe.target.training)

    def of_records(is_member: bool, most: int) -> list[str]:
        payloads = table.filter(pc.equal(table["is_member"], is_member))["payload"].slice(0, most)
        return [texts.text(payload) for payload in payloads.to_pylist()]

    own = [texts.text(payload) for payload in written]
    members = of_records(True, LOOKED_AT)
    shared = None
    if members:
        shared = ngram_overlap(members, own, [str(n) for n in range(len(own))]).mean_share
    repeating = sum(share >= HALF for share in repetition(own)) / len(own)
    answers = texts.training is not None and texts.training.format != "text"
    found = {
        "perplexity_on_written_text": _perplexity(facts.get("held_out_loss")),
        "written_told_from_non_members": separation_auc(
            own[:COMPARED], of_records(False, COMPARED)
        ),
        "written_repeats_itself": repeating,
        "written_twice": 1 - len(set(own)) / len(own),
        "written_almost_twice": almost_twice(own),
        "answers_begin_alike": commonest_beginning(own) if answers else None,
        "ngrams_shared_with_members": shared,
    }
    return {name: round(value, DIGITS) for name, value in found.items() if value is not None}


def almost_twice(texts: Sequence[str]) -> float:
    """Share of texts that equal or near-copy another, but for one of each."""
    apart = [*dict.fromkeys(texts)]
    copies = sum(len(cluster) - 1 for cluster in copied_texts(apart))
    return 1 - (len(apart) - copies) / len(texts)


def _perplexity(loss: Any) -> float | None:
    return math.exp(loss) if isinstance(loss, float) and loss < math.log(1e300) else None
