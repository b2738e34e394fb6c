"""Neighbors of a text: random spans masked and filled by a causal language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from raymia.neighbors.drafts import Draft, draft_from, fill_drafts
from raymia.neighbors.masking import Span, mask_text, replace_spans, word_units
from raymia.neighbors.parts import MakesNeighbors
from raymia.questions.base import Item, variants
from raymia.spec import InfillNeighbors
from raymia.util.draws import generator, stream_key

if TYPE_CHECKING:
    from raymia.models.paraphrasers.infiller import CausalInfiller, InfillRequest


@dataclass(frozen=True)
class InfillQuestion(MakesNeighbors):
    """The question put to a causal model: what could stand in place of these spans?

    Words are masked as :class:`~raymia.neighbors.mask_fill.MaskFillQuestion` masks them, and spans
    are filled from left to right: the model is shown the text before a span with its fills so far,
    and judges candidates by the text from the span to the next one, so it never sees a masked word.
    A fill has as many words as its span. Each neighbor is a function of (seed, record, neighbor
    index).
    """

    spec: InfillNeighbors
    seed: int
    kind: ClassVar[str] = "neighbors.infill"
    version: ClassVar[int] = 1

    def indices(self) -> range:
        return variants(self.spec.count)

    def own_key_parts(self) -> Mapping[str, Any]:
        parts = self.spec.model_dump(exclude={"kind", "model", "revision", "count"})
        return {"seed": self.seed, **parts}

    def make(self, model: CausalInfiller, items: Sequence[Item]) -> pa.Table:
        """Make each item's neighbor from its record's text; one row per item, in input order.

        A span that no candidate fills fails the attempt (:func:`fill_drafts`).
        """
        return fill_drafts(
            items, self.spec.attempts, self._draft, lambda drafts: self._fill(model, drafts)
        )

    def _draft(self, item: Item, attempt: int) -> Draft | None:
        units = word_units(item.payload)
        windows = mask_text(
            item.payload,
            units,
            share=self.spec.mask_share,
            span=self.spec.span,
            buffer=self.spec.buffer,
            window=max(1, len(units)),
            draws=generator(self.seed, "mask", item.record_id, item.neighbor, attempt),
        )
        return draft_from(item, windows, len(units), attempt)

    def _fill(self, model: CausalInfiller, drafts: list[Draft]) -> list[str | None]:
        """Fill the first span of every draft, then the second of those that have one, and so on."""
        spans = [draft.windows[0].spans for draft in drafts]
        done: list[list[tuple[Span, str]]] = [[] for _ in drafts]
        going = list(range(len(drafts)))
        while going:
            number = len(done[going[0]])
            requests = [self._request(drafts[d], spans[d], done[d]) for d in going]
            for d, fill in zip(going, model.fill(requests, self.spec), strict=True):
                if fill is not None:
                    done[d].append((spans[d][number], fill))
            going = [d for d in going if number < len(done[d]) < len(spans[d])]
        return [
            replace_spans(draft.item.payload, fills) if len(fills) == len(wanted) else None
            for draft, fills, wanted in zip(drafts, done, spans, strict=True)
        ]

    def _request(
        self, draft: Draft, spans: tuple[Span, ...], done: list[tuple[Span, str]]
    ) -> InfillRequest:
        from raymia.models.paraphrasers.infiller import InfillRequest

        text, item, number = draft.item.payload, draft.item, len(done)
        begin, end = spans[number]
        following = spans[number + 1][0] if number + 1 < len(spans) else len(text)
        return InfillRequest(
            left=replace_spans(text[:begin], done),
            words=len(text[begin:end].split()),
            right=text[end:following],
            key=stream_key(
                self.seed, "infill", item.record_id, item.neighbor, draft.attempt, number
            ),
        )
