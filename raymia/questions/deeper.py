"""Questions that ask more of a causal language model than a pass over the record: what it says
after a prefix, what it would learn, what it writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar

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
from raymia.questions.text import NO_TOKENS, NOT_FINITE, SUM_SCHEMA, sum_table
from raymia.spec import AuditSpec, SamplesSpec
from raymia.util.draws import stream_key
from raymia.util.hashing import digest

if TYPE_CHECKING:
    from raymia.models.causal.model import CausalLM

GRADIENT_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        ("l2", pa.float64()),
        ("largest", pa.float64()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
    ]
)
SAMPLE_SCHEMA = pa.schema(
    [*KEY_FIELDS, ("sample", pa.string()), ("start", pa.int32()), ("error", pa.string())]
)
TOO_SHORT = "too short to be cut into a prompt and a rest"
TOO_LONG = "longer than the model's context"
NO_SHOTS = "no text that was to come before it can be read as the training read texts"
TOO_LONG_WITH_PREFIX = "longer than what the prefix leaves of the model's context"


@register_question
@dataclass(frozen=True)
class PrefixQuestion(Question):
    """The summed log-probability of the record after texts of the population (ReCaLL, arXiv
    2406.15968).

    ``shots`` are the texts, in their order; none of them is a record that is scored. Those that the
    training would not have read, such as one longer than it kept, are left out. Of other records
    ``as_text`` takes the words that are scored alone.
    """

    shots: tuple[str, ...]
    as_text: bool = False
    name = "prefixed"
    section = "prefix"
    needs = frozenset({"prefixes"})
    kind: ClassVar[str] = "text.prefixed"
    version: ClassVar[int] = 3
    schema: ClassVar[pa.Schema] = SUM_SCHEMA

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.prefix
        return [cls(_shots(setup.population, spec.shots), spec.as_text)]

    @classmethod
    def lacking(cls, spec: AuditSpec) -> str | None:
        if spec.records.population:
            return None
        return (
            "needs texts that are no members and are not scored; name a file of them as "
            "`population` under `records`"
        )

    def key_parts(self) -> Mapping[str, Any]:
        shots = {"shots": digest(list(self.shots))}
        # As 1 (or true), words that a training had cut off stood in them too; as 2, texts that it
        # had cut were without the marks in them.
        return {**shots, "as_text": 3} if self.as_text else shots

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        from raymia.models.causal.conditional import answer_after, prefix_tokens

        prefix = prefix_tokens(model, self.shots, as_text=self.as_text)
        if not prefix:
            rows = [{**row_key(item), "error": NO_SHOTS} for item in items]
            return pa.Table.from_pylist(rows, schema=SUM_SCHEMA)
        answers = answer_after(model, prefix, [item.payload for item in items])
        return sum_table(items, answers, TOO_LONG_WITH_PREFIX)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.Floats:
        return layout.record_means(table, ids)


@register_question
class MemberPrefixQuestion(PrefixQuestion):
    """The same after known members (Con-ReCall)."""

    name = "member_prefixed"

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        spec = setup.spec.probes.prefix
        return [cls(_shots(setup.known_members, spec.shots), spec.as_text)]

    @classmethod
    def lacking(cls, spec: AuditSpec) -> str | None:
        if getattr(spec.records, "known_members", ()):
            return None
        return (
            "needs members that are not scored; name a file of them as `known_members` under "
            "`records`"
        )


@register_question
@dataclass(frozen=True)
class GradientQuestion(Question):
    """Norms of the gradient of the record's mean loss with respect to the weights."""

    name = "gradient"
    section = "gradient"
    needs = frozenset({"weights", "gradients"})
    access = "weights"
    cost = "1 backward"
    kind: ClassVar[str] = "text.gradient"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = GRADIENT_SCHEMA

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return spec.probes.gradient is None

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        from raymia.models.causal.gradient import gradient_norms

        rows = []
        answers = gradient_norms(model, [item.payload for item in items])
        for item, answer in zip(items, answers, strict=True):
            row = {**row_key(item), "truncated": answer.truncated}
            if answer.l2 is None or answer.largest is None:
                rows.append({**row, "error": answer.error or NO_TOKENS})
            elif not (math.isfinite(answer.l2) and math.isfinite(answer.largest)):
                rows.append({**row, "error": NOT_FINITE})
            else:
                rows.append({**row, "l2": answer.l2, "largest": answer.largest})
        return pa.Table.from_pylist(rows, schema=self.schema)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> layout.GradientEvidence:
        return layout.gradient_evidence(table, ids)


@register_question
@dataclass(frozen=True)
class SampleQuestion(Question):
    """What the model writes when it is given the first words of the record (SaMIA).

    A sample is at most as long, in tokens, as the rest of the record, and no longer than an answer
    where the training's template ends one. ``count`` is not part of the
    key. ``start`` is where the rest begins, in characters.
    """

    spec: SamplesSpec
    seed: int
    name = "samples"
    section = "samples"
    needs = frozenset({"generation"})
    access = "generated text"
    cost = "m written"
    kind: ClassVar[str] = "text.samples"
    version: ClassVar[int] = 3
    schema: ClassVar[pa.Schema] = SAMPLE_SCHEMA

    @classmethod
    def set_up(cls, setup: Setup) -> Sequence[Question]:
        return [cls(setup.spec.probes.samples or SamplesSpec(), setup.seed)]

    @classmethod
    def is_extra(cls, spec: AuditSpec) -> bool:
        return spec.probes.samples is None

    def indices(self) -> range:
        return variants(self.spec.count)

    def key_parts(self) -> Mapping[str, Any]:
        no_part = {"count", "extracted_words"}
        return {"seed": self.seed, **self.spec.model_dump(exclude=no_part)}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        from raymia.models.causal.answering import ends_of_answers

        rows: list[dict[str, Any]] = []
        ends = ends_of_answers(model.reader)
        for _, group in groupby(items, key=lambda item: item.record_id):
            rows += self._of_one_record(model, list(group), ends)
        return pa.Table.from_pylist(rows, schema=self.schema)

    def lay_out(self, table: pa.Table | None, ids: Sequence[str]) -> list[list[tuple[int, str]]]:
        return layout.sample_evidence(table, ids, self.spec.count)

    def _of_one_record(
        self, model: CausalLM, items: list[Item], ends: set[int]
    ) -> list[dict[str, Any]]:
        from raymia.models.causal.generation import continue_tokens

        prompt, length, start = model.reader.begun(items[0].payload, self.spec.prompt_share)
        if not prompt or length <= len(prompt):
            return [{**row_key(item), "error": TOO_SHORT} for item in items]
        if model.max_tokens is not None and length > model.max_tokens:
            return [{**row_key(item), "error": TOO_LONG} for item in items]
        written = continue_tokens(
            model,
            [prompt] * len(items),
            [stream_key(self.seed, "sample", item.record_id, item.neighbor) for item in items],
            whole=length,
            temperature=self.spec.temperature,
            top_k=self.spec.top_k,
            budget=model.batch_tokens,
            ends=ends,
        )
        return [
            {**row_key(item), "sample": model.reader.words(ids), "start": start}
            for item, ids in zip(items, written, strict=True)
        ]


def _shots(texts: Mapping[str, str], count: int) -> tuple[str, ...]:
    """The same texts whatever the order of the files: the first by their ids, which are hashes."""
    return tuple(texts[identifier] for identifier in sorted(texts)[:count])
