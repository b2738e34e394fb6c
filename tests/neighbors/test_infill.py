"""Neighbors by a causal infiller: the same masks as a T5's, filled from left to right."""

from __future__ import annotations

import re

import pytest
from tiny_models import passages

from raymia.models.paraphrasers.infiller import CausalInfiller
from raymia.neighbors.drafts import NOTHING_TO_MASK, UNFILLED
from raymia.neighbors.infill import InfillQuestion
from raymia.neighbors.mask_fill import MaskFillQuestion
from raymia.questions.base import Item
from raymia.records.texts import record_id
from raymia.spec import InfillNeighbors, MaskFillNeighbors

TEXTS = [" ".join(text.split()[: 14 + 10 * i]) for i, text in enumerate(passages(3))]


def probe(seed=0, **settings):
    return InfillQuestion(
        InfillNeighbors(kind="infill", model="m", **{"count": 3, **settings}), seed
    )


def items(texts, indices):
    return [Item(record_id(text), index, text) for text in texts for index in indices]


def ask(asked, model, some):
    rows = asked.ask(model, some).to_pylist()
    assert [(r["record_id"], r["neighbor"]) for r in rows] == [
        (i.record_id, i.neighbor) for i in some
    ]
    return rows


@pytest.fixture(scope="module")
def infiller(base):
    return CausalInfiller(base)


class FakeInfiller:
    """Answers each request with what a function says, and keeps the requests, call by call."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    @property
    def requests(self):
        return [request for call in self.calls for request in call]

    def fill(self, requests, spec):
        del spec
        self.calls.append(requests)
        return [self.answer(request) for request in requests]


MARK = FakeInfiller(lambda request: "X" * request.words)


@pytest.mark.long
def test_neighbor_alone_is_the_one_of_the_batch_in_any_order(infiller):
    some = items(TEXTS, range(1, 4))
    rows = ask(probe(), infiller, some)
    assert ask(probe(), infiller, some[::-1])[::-1] == rows
    assert [ask(probe(count=9), infiller, [some[n]])[0] for n in (0, 8)] == [rows[0], rows[8]]
    assert len({row["payload"] for row in rows if row["payload"]}) >= 7


def test_same_words_are_masked_as_for_a_t5():
    class T5:
        def fill(self, requests, **_):
            return [["X"] * request.spans for request in requests]

    for_t5 = MaskFillQuestion(MaskFillNeighbors(model="t5"), 0)
    ones = FakeInfiller(lambda _: "X")
    some = items(TEXTS, range(1, 6))
    theirs, ours = for_t5.ask(T5(), some).to_pylist(), ask(probe(), ones, some)
    assert ours == theirs


def test_fills_so_far_stand_in_the_left_and_no_masked_word_is_seen():
    text = " ".join(f"w{i}" for i in range(80))
    model = FakeInfiller(lambda request: f"F{request.words}")
    (row,) = ask(probe(), model, items([text], [1]))
    masked = {f"w{i}" for i in range(80)} - set(row["payload"].split())
    assert len(masked) == 12
    assert [len(call) for call in model.calls] == [1] * 6
    for number, request in enumerate(model.requests):
        assert request.left.split().count("F2") == number
        assert not masked & set(request.left.split())
        assert not masked & set(request.right.split())
        assert request.left + "F2" + request.right == row["payload"][: len(request.left)] + (
            "F2" + request.right
        )
    assert row["payload"].endswith(model.requests[-1].right)
    assert len({request.key for request in model.requests}) == 6


def test_text_outside_masks_stays_byte_for_byte():
    text = "  Leading space,\ttabs\n\nand  double  spaces — naïve “quotes” and an emoji 🦄 at end "
    model = FakeInfiller(lambda _: "\x00")
    for row in ask(probe(count=20), model, items([text], range(1, 21))):
        pattern = ".+".join(re.escape(part) for part in row["payload"].split("\x00"))
        assert re.fullmatch(pattern, text, re.DOTALL)


def test_fill_that_equals_the_span_is_kept_as_a_t5s_is():
    text = "same same same same same same"
    (row,) = ask(probe(), FakeInfiller(lambda r: " ".join(["same"] * r.words)), items([text], [1]))
    assert (row["payload"], row["error"]) == (text, None)


def test_attempts_are_bounded_counted_and_each_masks_anew():
    never = FakeInfiller(lambda _: None)
    rows = ask(probe(attempts=4), never, items(TEXTS[1:], [1, 2]))
    assert len(never.requests) == 4 * 4
    assert len({request.key for request in never.requests}) == 16
    assert len({request.left for request in never.requests}) > 4
    for row in rows:
        assert (row["payload"], row["error"], row["attempts"]) == (None, UNFILLED, 4)


def test_span_without_a_fill_fails_the_attempt_and_no_later_span_is_asked_about():
    text = " ".join(f"w{i}" for i in range(80))
    second_fails = FakeInfiller(lambda r: None if "X" in r.left else "X")
    (row,) = ask(probe(attempts=3), second_fails, items([text], [1]))
    assert row["error"] == UNFILLED
    assert len(second_fails.requests) == 2 * 3


def test_failure_of_one_neighbor_does_not_change_another():
    some = items(TEXTS[1:], [1, 2])
    doomed = set()
    model = FakeInfiller(lambda r: None if r.key in doomed else f"{r.key}")
    untouched = ask(probe(), model, some)
    doomed.add(model.requests[0].key)
    disturbed = ask(probe(), model, some)
    assert disturbed[1:] == untouched[1:]
    assert disturbed[0]["attempts"] == 2


@pytest.mark.parametrize("text", ["word", "  word  "])
def test_text_too_short_to_mask_says_so(text):
    rows = ask(probe(), MARK, items([text, TEXTS[0]], [1]))
    assert (rows[0]["payload"], rows[0]["error"]) == (None, NOTHING_TO_MASK)
    assert rows[1]["error"] is None


def test_no_items_have_no_neighbors(infiller):
    assert probe().ask(infiller, []).num_rows == 0


def test_key_holds_everything_that_changes_a_neighbor():
    plain = probe().key_parts()
    changes = [
        {"mask_share": 0.2}, {"span": 1}, {"buffer": 0}, {"candidates": 2}, {"left_tokens": 9},
        {"right_tokens": 9}, {"temperature": 0.9}, {"top_k": None}, {"max_fill_tokens": 9},
        {"attempts": 6},
    ]  # fmt: skip
    for change in changes:
        assert probe(**change).key_parts() != plain, change
    assert probe(seed=1).key_parts() != plain
    assert probe(count=9).key_parts() == plain
