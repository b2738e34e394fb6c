"""Neighbors of a text: random spans masked and filled by a T5 model.

The semantic-domain paraphrasing of SPV-MIA (arXiv 2311.06062, section 4.2), as DetectGPT does it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from raymia.neighbors.drafts import Draft, draft_from, fill_drafts
from raymia.neighbors.masking import Span, mask_text, replace_spans, word_units
from raymia.neighbors.parts import MakesNeighbors
from raymia.questions.base import Item, variants
from raymia.spec import MaskFillNeighbors
from raymia.util.draws import generator, stream_key

if TYPE_CHECKING:
    from raymia.models.paraphrasers.mask_filler import FillRequest, MaskFiller

_SENTINEL = re.compile(r"<extra_id_\d+>")


@dataclass(frozen=True)
class MaskFillQuestion(MakesNeighbors):
    """The question put to a T5: what could stand in place of these spans?

    It has the shape of a question (:mod:`raymia.questions.base`), so neighbors are made, stored,
    resumed and planned as evidence is. Each neighbor is a function of (seed, record, neighbor
    index).
    """

    spec: MaskFillNeighbors
    seed: int
    kind: ClassVar[str] = "neighbors.mask_fill"
    version: ClassVar[int] = 1

    def indices(self) -> range:
        return variants(self.spec.count)

    def own_key_parts(self) -> Mapping[str, Any]:
        parts = self.spec.model_dump(exclude={"kind", "preset", "model", "revision", "count"})
        return {"seed": self.seed, **parts}

    def make(self, model: MaskFiller, items: Sequence[Item]) -> pa.Table:
        """Make each item's neighbor from its record's text; one row per item, in input order.

        A fill that is missing or empty fails the attempt (:func:`fill_drafts`).
        """
        units = {item.record_id: self._units(model, item.payload) for item in items}

        def draft(item: Item, attempt: int) -> Draft | None:
            return self._draft(item, units[item.record_id], attempt)

        return fill_drafts(
            items, self.spec.attempts, draft, lambda drafts: self._fill(model, drafts)
        )

    def _units(self, model: MaskFiller, text: str) -> list[Span]:
        return word_units(text) if self.spec.unit == "word" else model.token_spans(text)

    def _draft(self, item: Item, units: list[Span], attempt: int) -> Draft | None:
        spec = self.spec
        draws = generator(self.seed, "mask", item.record_id, item.neighbor, attempt)
        windows = mask_text(
            item.payload,
            units,
            share=spec.mask_share,
            span=spec.span,
            buffer=spec.buffer,
            window=spec.window,
            draws=draws,
        )
        return draft_from(item, windows, len(units), attempt)

    def _fill(self, model: MaskFiller, drafts: list[Draft]) -> list[str | None]:
        places = [(d, w) for d, draft in enumerate(drafts) for w in range(len(draft.windows))]
        requests = [self._request(drafts[d], w) for d, w in places]
        fills = model.fill(requests, temperature=self.spec.temperature, top_k=self.spec.top_k)
        replacements: list[list[tuple[Span, str]] | None] = [[] for _ in drafts]
        for (d, w), filled in zip(places, fills, strict=True):
            so_far, spans = replacements[d], drafts[d].windows[w].spans
            if so_far is None or filled is None:
                replacements[d] = None
            else:
                so_far += zip(spans, filled, strict=True)
        return [
            None if r is None else replace_spans(draft.item.payload, r)
            for draft, r in zip(drafts, replacements, strict=True)
        ]

    def _request(self, draft: Draft, number: int) -> FillRequest:
        from raymia.models.paraphrasers.mask_filler import FillRequest

        window, text = draft.windows[number], draft.item.payload
        parts, position = [], window.start
        for index, (begin, end) in enumerate(window.spans):
            parts += [_plain(text[position:begin]), f"<extra_id_{index}>"]
            position = end
        parts.append(_plain(text[position : window.end]))
        item = draft.item
        key = stream_key(self.seed, "fill", item.record_id, item.neighbor, draft.attempt, number)
        return FillRequest(
            text="".join(parts),
            spans=len(window.spans),
            # each span is announced by a sentinel, and one more ends the fills
            max_new_tokens=window.units * self.spec.max_fill_tokens + len(window.spans) + 2,
            key=key,
        )


def _plain(text: str) -> str:
    """A record that spells a sentinel must not be taken for a mask."""
    return _SENTINEL.sub(lambda match: match.group().replace("<", "< "), text)
