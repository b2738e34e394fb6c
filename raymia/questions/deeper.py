"""Probes that ask more of a causal language model than a pass over the record: what it says after
a prefix, what it would learn, what it writes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import pyarrow as pa

from raymia.models.causal.conditional import answer_after, prefix_tokens
from raymia.models.causal.generation import continue_tokens
from raymia.models.causal.gradient import gradient_norms
from raymia.models.causal.model import CausalLM
from raymia.questions.base import AboutRecord, Item, variants
from raymia.questions.text import KEY_FIELDS, NO_TOKENS, NOT_FINITE, SUM_SCHEMA, row_key, sum_row
from raymia.spec import SamplesSpec
from raymia.util.draws import stream_key
from raymia.util.hashing import digest

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
TOO_LONG_WITH_PREFIX = "longer than what the prefix leaves of the model's context"


@dataclass(frozen=True)
class PrefixProbe(AboutRecord):
    """The summed log-probability of the record after other texts (ReCaLL, arXiv 2406.15968).

    ``shots`` are the texts, in their order; none of them is a record that is scored.
    """

    shots: tuple[str, ...]
    kind: ClassVar[str] = "text.prefixed"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SUM_SCHEMA

    def key_parts(self) -> Mapping[str, Any]:
        return {"shots": digest(list(self.shots))}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        prefix = prefix_tokens(model, self.shots)
        answers = answer_after(model, prefix, [item.payload for item in items])
        rows = [
            sum_row(item, a.log_prob, a.truncated, TOO_LONG_WITH_PREFIX if a.truncated else None)
            for item, a in zip(items, answers, strict=True)
        ]
        return pa.Table.from_pylist(rows, schema=self.schema)


@dataclass(frozen=True)
class GradientProbe(AboutRecord):
    """Norms of the gradient of the record's mean loss with respect to the weights."""

    kind: ClassVar[str] = "text.gradient"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = GRADIENT_SCHEMA

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        rows = []
        answers = gradient_norms(model, [item.payload for item in items])
        for item, answer in zip(items, answers, strict=True):
            row = {**row_key(item), "truncated": answer.truncated}
            if answer.l2 is None or answer.largest is None:
                rows.append({**row, "error": NO_TOKENS})
            elif not (math.isfinite(answer.l2) and math.isfinite(answer.largest)):
                rows.append({**row, "error": NOT_FINITE})
            else:
                rows.append({**row, "l2": answer.l2, "largest": answer.largest})
        return pa.Table.from_pylist(rows, schema=self.schema)


@dataclass(frozen=True)
class SampleProbe(AboutRecord):
    """What the model writes when it is given the first words of the record (SaMIA).

    A sample is at most as long, in tokens, as the rest of the record. ``count`` is not part of the
    key. ``start`` is where the rest begins, in characters.
    """

    spec: SamplesSpec
    seed: int
    kind: ClassVar[str] = "text.samples"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SAMPLE_SCHEMA

    def indices(self) -> range:
        return variants(self.spec.count)

    def key_parts(self) -> Mapping[str, Any]:
        return {"seed": self.seed, **self.spec.model_dump(exclude={"count"})}

    def ask(self, model: CausalLM, items: Sequence[Item]) -> pa.Table:
        rows: list[dict[str, Any]] = []
        for _, group in groupby(items, key=lambda item: item.record_id):
            rows += self._of_one_record(model, list(group))
        return pa.Table.from_pylist(rows, schema=self.schema)

    def _of_one_record(self, model: CausalLM, items: list[Item]) -> list[dict[str, Any]]:
        text = items[0].payload
        start = rest_begins(text, self.spec.prompt_share)
        prompt = model.encode_beginnings([text[:start].rstrip()])[0] if start else []
        length = len(model.encode_beginnings([text])[0])
        new_tokens = length - len(prompt)
        if not prompt or new_tokens < 1:
            return [{**row_key(item), "error": TOO_SHORT} for item in items]
        if model.max_tokens is not None and length > model.max_tokens:
            return [{**row_key(item), "error": TOO_LONG} for item in items]
        written = continue_tokens(
            model,
            [prompt] * len(items),
            [stream_key(self.seed, "sample", item.record_id, item.neighbor) for item in items],
            new_tokens=new_tokens,
            temperature=self.spec.temperature,
            top_k=self.spec.top_k,
            budget=model.batch_tokens,
        )
        samples = model.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            {**row_key(item), "sample": sample, "start": start}
            for item, sample in zip(items, samples, strict=True)
        ]


def rest_begins(text: str, share: float) -> int:
    """Where the words after the first share of them begin, in characters; 0 where there are none
    on one of the sides."""
    words = list(re.finditer(r"\S+", text))
    first = int(share * len(words))
    return words[first].start() if 0 < first < len(words) else 0
