"""Questions that put changed copies of the record itself to a causal language model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.evidence import text as layout
from raymia.questions.base import (
    KEY_FIELDS,
    Item,
    Question,
    Setup,
    register_question,
    row_key,
    variants,
)
from raymia.questions.text import ANY_CAUSAL, SUM_SCHEMA, error_of, sum_table
from raymia.spec import AuditSpec, NoiseSpec, SwapsSpec
from raymia.util.draws import generator, stream_key

if TYPE_CHECKING:
    from raymia.models.causal.model import CausalLM
    from raymia.models.causal.reading import Reader

SWAP_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        ("log_prob", pa.list_(pa.float32())),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
)
IN_WINDOWS = "longer than the model's context, and noise is not put on windows"
ONE_WORD = "fewer than two words, so none can change places"


@register_question
@dataclass(frozen=True)
class LowercaseQuestion(Question):
    """The summed log-probability and the token count of the record in lower case."""

    name = "lowercase"
    families = ANY_CAUSAL
    needs = frozenset({"words"})
    kind: ClassVar[str] = "text.lowercase"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SUM_SCHEMA

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        copies = [model.reader.changed(item.payload, str.lower) for item in items]
        return sum_table(items, model.answer(copies, moments=False))

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.Floats:
        return layout.record_means(table, ids)


@register_question
@dataclass(frozen=True)
class SwapQuestion(Question):
    """The log-probability of each token of copies of the record in which words changed places.

    PAC's augmentation (arXiv 2405.11930): ``max(1, int(share * words))`` times, two words drawn
    at random change places. The space between them stays as it is; released code puts one blank
    for each, so that of a text with line breaks it measures these. ``count`` is not part of the
    key: the first 5 copies of 10 are the same 5.
    """

    spec: SwapsSpec
    seed: int
    name = "swaps"
    section = "swaps"
    families = ANY_CAUSAL
    needs = frozenset({"words"})
    cost = "s"
    kind: ClassVar[str] = "text.swaps"
    version: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = SWAP_SCHEMA

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        return [cls(setup.spec.probes.swaps or SwapsSpec(), setup.seed)]

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return spec.probes.swaps is None

    def indices(self) -> range:
        return variants(self.spec.count)

    def key_parts(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "share": self.spec.share}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        from raymia.models.causal.beginnings import answer_alike

        copies = [swap_words(item, self.spec.share, self.seed, model.reader) for item in items]
        pairs = zip(items, copies, strict=True)
        swapped = [(item.record_id, copy) for item, copy in pairs if copy is not None]
        records, texts = [record for record, _ in swapped], [copy for _, copy in swapped]
        made = iter(answer_alike(model, texts, records))
        rows = []
        for item, copy in zip(items, copies, strict=True):
            if copy is None:
                rows.append({**row_key(item), "error": ONE_WORD})
                continue
            answer = next(made)
            error = answer.error or error_of(answer.log_prob)
            row = {**row_key(item), "truncated": answer.truncated, "error": error}
            rows.append(row if error else {**row, "log_prob": answer.log_prob})
        return pa.Table.from_pylist(rows, schema=self.schema)

    def lay_out(
        self, table: pa.Table | None, ids: Sequence[str]
    ) -> list[list[npt.NDArray[np.float32]]]:
        return layout.swap_evidence(table, ids, self.spec.count)


def swap_words(item: Item, share: float, seed: int, reader: Reader | None = None) -> str | None:
    """A copy of an item with words swapped in each part that is scored, and what is between them
    left where it is; None where no part has two words.

    Parameters
    ----------
    reader : of the model, which knows what is scored; None takes the payload for a text.
    """
    draws = generator(seed, "swap words", item.record_id, item.neighbor)
    swapped = False

    def swap(text: str) -> str:
        nonlocal swapped
        pieces = re.split(r"(\s+)", text)  # words and what is between them, in turn
        words = [place for place, piece in enumerate(pieces) if piece and not piece.isspace()]
        if len(words) < 2:
            return text
        swapped = True
        for _ in range(max(1, int(share * len(words)))):
            i, j = draws.choice(len(words), size=2, replace=False)
            one, other = words[i], words[j]
            pieces[one], pieces[other] = pieces[other], pieces[one]
        return "".join(pieces)

    copy = swap(item.payload) if reader is None else reader.changed(item.payload, swap)
    return copy if swapped else None


@register_question
@dataclass(frozen=True)
class NoiseQuestion(Question):
    """The summed log-probability of the record with Gaussian noise on its input embeddings.

    SPV-MIA's paraphrasing in the embedding domain (arXiv 2311.06062, section 4.2): index 2n - 1 is
    x + z_n and index 2n is x - z_n. A target and a reference of one embedding width share z_n.
    ``pairs`` is not part of the key.
    """

    spec: NoiseSpec
    seed: int
    name = "noise"
    section = "noise"
    needs = frozenset({"weights"})
    access = "weights"
    cost = "2z"
    kind: ClassVar[str] = "text.noise"
    version: ClassVar[int] = 3
    schema: ClassVar[pa.Schema] = SUM_SCHEMA

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        return [cls(setup.spec.probes.noise or NoiseSpec(), setup.seed)]

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return spec.probes.noise is None

    def indices(self) -> range:
        return variants(2 * self.spec.pairs)

    def key_parts(self) -> Mapping[str, Any]:
        return {"seed": self.seed, "scale": self.spec.scale}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        from raymia.models.causal.perturbed import NoiseRequest, answer_perturbed

        requests = [
            NoiseRequest(
                item.payload,
                stream_key(self.seed, "embedding noise", item.record_id, (item.neighbor + 1) // 2),
                self.spec.scale if item.neighbor % 2 else -self.spec.scale,
            )
            for item in items
        ]
        cut = IN_WINDOWS if model.long_texts == "windows" else None
        return sum_table(items, answer_perturbed(model, requests), cut)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.NeighborEvidence:
        return layout.neighbor_evidence(table, ids, len(self.indices()))
