"""The question about the other answer of a preference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from raymia.evidence import text as layout
from raymia.questions.base import Item, Question, register_question
from raymia.questions.text import SUM_SCHEMA, sum_table
from raymia.spec import AuditSpec

if TYPE_CHECKING:
    from raymia.models.causal.model import CausalLM


@register_question
@dataclass(frozen=True)
class OtherAnswerQuestion(Question):
    """The summed log-probability of the answer that is not scored by itself, after the same prompt.

    Which one it is is part of the model's key, with how it was trained.
    """

    name = "other_answer"
    needs = frozenset({"pairs"})
    kind: ClassVar[str] = "text.other_answer"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SUM_SCHEMA

    @classmethod
    def lacking(cls, spec: AuditSpec) -> str | None:
        if spec.records.are_pairs:
            return None
        return "compares two answers; give records with columns chosen and rejected"

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        payloads = [item.payload for item in items]
        answers = model.answer(payloads, moments=False, reader=model.other_reader)
        return sum_table(items, answers)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.Floats:
        return layout.record_sums(table, ids)
