"""One record cannot fail a checkpoint: what a model fails on is one record's answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_models import checkpoint, passages, save_tiny

from raymia.models.causal.family import load_causal_lm
from raymia.questions.base import Item, Question, row_key
from raymia.questions.harmless import WORDS, harmless
from raymia.questions.put import put
from raymia.questions.text import SUM_SCHEMA, NeighborQuestion, TokenQuestion
from raymia.util.errors import RaymiaError


@dataclass(frozen=True)
class Lengths(Question):
    """Sums are lengths; fails on what the model says, as a whole."""

    kind: ClassVar[str] = "text.lengths"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SUM_SCHEMA

    def ask(self, model: Any, items: Any) -> pa.Table:
        model(items)
        rows = [{**row_key(item), "log_prob_sum": float(len(item.payload))} for item in items]
        return pa.Table.from_pylist(rows, schema=self.schema)


ITEMS = [Item(f"r{n:02}", neighbor, "x" * n) for n in range(20) for neighbor in (1, 2)]


class Fails:
    """A model that fails on some records, and counts what it is asked."""

    def __init__(self, error: Exception, *records: str) -> None:
        self.error, self.records = error, {*records}
        self.calls: list[int] = []

    def __call__(self, items: Any) -> None:
        self.calls.append(len(items))
        if self.records & {item.record_id for item in items}:
            raise self.error


@pytest.mark.parametrize("error", [IndexError("index 7 is out of range"), RuntimeError("size 3"),
                                   KeyError("no such class")])  # fmt: skip
def test_record_that_a_model_fails_on_has_the_error_as_its_answer(error: Exception) -> None:
    model = Fails(error, "r03", "r17")
    rows = {(r["record_id"], r["neighbor"]): r for r in put(Lengths(), model, ITEMS).to_pylist()}
    assert len(rows) == len(ITEMS)
    for item in ITEMS:
        row = rows[item.record_id, item.neighbor]
        if item.record_id in model.records:
            assert row["error"] == f"{type(error).__name__}; came: {error}"
            assert row["log_prob_sum"] is None
        else:
            assert row["error"] is None
            assert row["log_prob_sum"] == len(item.payload)
    assert len(model.calls) < 20, "the records are looked for by halves"


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory"), MemoryError(), RaymiaError("refused"),
     torch.AcceleratorError("CUDA error: device-side assert triggered"),
     RuntimeError("CUDA error: an illegal memory access was encountered")],
    ids=["memory of a GPU", "memory", "refusal", "assert", "device"],
)  # fmt: skip
def test_what_is_of_no_record_is_raised_at_once(error: Exception) -> None:
    model = Fails(error, "r03")
    with pytest.raises(type(error)):
        put(Lengths(), model, ITEMS)
    assert len(model.calls) == 1


class FailsOnAll(Fails):
    """Says of each record the same, or another thing."""

    def __init__(self, error: type[Exception], text: str) -> None:
        super().__init__(error(text))
        self.of, self.text = error, text

    def __call__(self, items: Any) -> None:
        self.calls.append(len(items))
        raise self.of(self.text.format(items[0].record_id))


@pytest.mark.parametrize("records", [2, 20])
@pytest.mark.parametrize("text", ["no such argument", "no such argument, of {}"])
def test_what_fails_on_every_record_and_a_harmless_one_is_of_a_model_that_never_answered(
    records: int, text: str
) -> None:
    with pytest.raises(TypeError, match="no such argument"):
        put(Lengths(), FailsOnAll(TypeError, text), ITEMS[: 2 * records])


@pytest.mark.parametrize(
    ("records", "text", "has_answered"),
    [(1, "index out of range", False), (20, "index out of range", True),
     (20, "no embedding for {}", True)],
    ids=["one", "an answer before", "an answer before, each its own"],
)  # fmt: skip
def test_one_record_that_fails_or_all_of_a_model_that_answered_fail_no_model(
    records: int, text: str, has_answered: bool
) -> None:
    items = ITEMS[: 2 * records]
    answers = put(Lengths(), FailsOnAll(IndexError, text), items, lambda: has_answered)
    said = {row["record_id"]: row["error"] for row in answers.to_pylist()}
    assert said == {i.record_id: f"IndexError; came: {text.format(i.record_id)}" for i in items}


class FailsOnLetters(Fails):
    """Fails on payloads that have a letter; what it says may name the record."""

    def __init__(self, letter: str, text: str = "index out of range") -> None:
        super().__init__(IndexError(text))
        self.letter, self.text = letter, text

    def __call__(self, items: Any) -> None:
        self.calls.append(len(items))
        if any(self.letter in item.payload for item in items if item.payload is not None):
            raise IndexError(self.text.format(items[0].record_id))


ALIKE = [Item(f"r{n}", neighbor, "x" * 5) for n in range(20) for neighbor in (1, 2)]


@pytest.mark.parametrize("text", ["index out of range", "no embedding for {}"])
@pytest.mark.parametrize("records", [2, 20])
def test_records_that_all_fail_by_their_own_fault_fail_no_model_that_answers_about_others(
    text: str, records: int
) -> None:
    items = ALIKE[: 2 * records]
    answers = put(Lengths(), FailsOnLetters("x", text), items)
    said = {row["record_id"]: row["error"] for row in answers.to_pylist()}
    assert said == {i.record_id: f"IndexError; came: {text.format(i.record_id)}" for i in items}
    with pytest.raises(IndexError):
        put(Lengths(), FailsOnLetters("", text), items)


def test_a_device_that_fails_on_a_harmless_record_is_gone():
    class Fallen(FailsOnLetters):
        def __call__(self, items: Any) -> None:
            if "x" not in items[0].payload:
                raise MemoryError
            super().__call__(items)

    with pytest.raises(MemoryError):
        put(Lengths(), Fallen("x"), ALIKE)


def test_what_a_model_answers_with_an_error_alone_is_no_answer():
    class Refuses(Lengths):
        def ask(self, model: Any, items: Any) -> pa.Table:
            model(items)
            rows = [{**row_key(item), "error": "refused"} for item in items]
            return pa.Table.from_pylist(rows, schema=self.schema)

    with pytest.raises(IndexError):
        put(Refuses(), FailsOnLetters("x"), ALIKE)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("one\x00bad text", WORDS),
        ("[7, 7]", WORDS),
        ({"pixels": b"\x00\xff\x07", "caption": "bad", "label": 7},
         {"pixels": b"\x80\x80\x80", "caption": WORDS, "label": 7}),
        ('{"messages": [{"role": "user", "content": "bad"}], "tools": [{"name": "f"}]}',
         f'{{"messages": [{{"role": "user", "content": "{WORDS}"}}], "tools": [{{"name": "f"}}]}}'),
        ('{"input_ids": [99, 17, 3], "labels": [-100, 17, 3]}',
         '{"input_ids": [3, 1, 3], "labels": [-100, 1, 3]}'),
        (None, None),
    ],
    ids=["text", "text that is a list", "image", "conversation", "tokens", "none"],
)  # fmt: skip
def test_a_harmless_record_has_the_form_and_none_of_the_content(payload, expected):
    assert harmless(payload) == expected


def test_long_error_is_cut() -> None:
    answers = put(Lengths(), Fails(ValueError("y" * 9_000), "r01"), ITEMS[:4])
    assert [len(e) for e in answers["error"].to_pylist() if e] == [300, 300]


@pytest.mark.parametrize("neighbor", [0, 1])
def test_tokens_without_an_embedding_spoil_the_texts_that_have_them(tmp_path, neighbor) -> None:
    """On a GPU such a token ends the process, so it is found before the model is called."""
    folder = save_tiny(tmp_path, "llama", vocab_size=2_000)
    model = load_causal_lm(checkpoint(folder), batch_tokens=512)
    texts = passages(12)
    most = [max(model.tokenizer(text)["input_ids"]) for text in texts]
    assert min(most) < 2_000 <= max(most)
    called = []
    output_of = model.head.output_of
    model.head.output_of = lambda mask, **given: (
        called.append(int(given["input_ids"].max())) or output_of(mask, **given)
    )
    question = NeighborQuestion(1, "hash") if neighbor else TokenQuestion()
    items = [Item(str(n), neighbor, text) for n, text in enumerate(texts)]
    rows = put(question, model, items).to_pylist()
    for row, largest in zip(sorted(rows, key=lambda r: int(r["record_id"])), most, strict=True):
        if largest < 2_000:
            assert row["error"] is None
        else:
            assert f"has none; came: {largest} (" in row["error"]
    assert max(called) < 2_000
    alone = next(n for n, largest in enumerate(most) if largest < 2_000)
    if not neighbor:
        expected = model.answer([texts[alone]], moments=False)[0].log_prob
        found = next(row["log_prob"] for row in rows if row["record_id"] == str(alone))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
