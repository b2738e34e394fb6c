"""Neighbors by mask filling: functions of seed, record and index alone."""

from __future__ import annotations

import re

import pytest
from tiny_models import passages

from raymia.models import sampling
from raymia.models.paraphrasers.mask_filler import MaskFiller
from raymia.neighbors.drafts import NOTHING_TO_MASK, UNFILLED
from raymia.neighbors.mask_fill import MaskFillQuestion
from raymia.neighbors.masking import word_units
from raymia.questions.base import Item
from raymia.records.texts import record_id
from raymia.spec import MaskFillNeighbors

TEXTS = [" ".join(text.split()[: 12 + 7 * i]) for i, text in enumerate(passages(4))]


def probe(seed=0, **settings):
    return MaskFillQuestion(MaskFillNeighbors(model="t5", **{"count": 3, **settings}), seed)


def items(texts, indices):
    return [Item(record_id(text), index, text) for text in texts for index in indices]


def ask(asked, filler, some):
    rows = asked.ask(filler, some).to_pylist()
    assert [(r["record_id"], r["neighbor"]) for r in rows] == [
        (i.record_id, i.neighbor) for i in some
    ]
    return rows


@pytest.fixture(scope="module")
def ten(filler):
    """Ten neighbors of each text, made in one batch."""
    return ask(probe(count=10), filler, items(TEXTS, range(1, 11)))


class FakeFiller:
    """Answers each request with what a function says, and counts the requests."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def fill(self, requests, *, temperature, top_k):
        del temperature, top_k
        self.requests += requests
        return [self.answer(request) for request in requests]


# -------------------------------------------------- promise 1: whatever stands beside


def test_neighbor_alone_is_the_one_of_the_batch(filler, ten):
    some = items(TEXTS, range(1, 11))
    for number in (0, 9, 13, 27, 39):
        assert ask(probe(count=10), filler, [some[number]]) == [ten[number]]


def test_order_does_not_matter(filler, ten):
    some = items(TEXTS, range(1, 11))
    assert ask(probe(count=10), filler, some[::-1])[::-1] == ten


def test_batch_size_does_not_matter(filler, ten):
    small = MaskFiller(filler.model, filler.tokenizer, batch_tokens=150)
    assert ask(probe(count=10), small, items(TEXTS, range(1, 11))) == ten


def test_first_five_of_ten_are_the_five_of_a_smaller_count(filler, ten):
    five = ask(probe(count=5), filler, items(TEXTS, range(1, 6)))
    assert five == [row for row in ten if row["neighbor"] <= 5]
    assert probe(count=5).key_parts() == probe(count=10).key_parts()


def test_other_seed_makes_other_neighbors(filler, ten):
    other = ask(probe(seed=1, count=10), filler, items(TEXTS[1:2], range(1, 4)))
    same = [r for r in ten if r["record_id"] == record_id(TEXTS[1])][:3]
    assert [r["payload"] for r in other] != [r["payload"] for r in same]
    assert probe(seed=1).key_parts() != probe(seed=0).key_parts()


def test_close_calls_are_what_the_neighbor_alone_would_be(filler, monkeypatch):
    some = items(TEXTS[:2], range(1, 3))
    alone = [ask(probe(), filler, [item])[0] for item in some]
    monkeypatch.setattr(sampling, "TOO_CLOSE", 1e9)
    assert ask(probe(), filler, some) == alone


# ------------------------------------------------------------------ what a neighbor is


def test_neighbors_of_a_record_differ_from_it_and_from_each_other(ten):
    for text in TEXTS[2:]:
        made = [r["payload"] for r in ten if r["record_id"] == record_id(text) and r["payload"]]
        assert len(made) >= 8
        assert len(set(made)) == len(made)
        assert text not in made


def test_every_neighbor_is_a_text_or_an_error(ten):
    for row in ten:
        assert (row["payload"] is None) == (row["error"] is not None)
        assert 1 <= row["attempts"] <= 5
        if row["payload"] is not None:
            assert row["payload"].strip()
            assert "<extra_id" not in row["payload"]


@pytest.mark.parametrize(
    "text",
    [
        "  Leading space,\ttabs\n\nand  double  spaces — naïve “quotes” and an emoji 🦄 at end ",
        "One\r\nline and\r\nanother with some more words to have something that can be masked",
    ],
)
def test_text_outside_masks_stays_byte_for_byte(text):
    """Each span is filled by a mark; around the marks everything is as it was."""
    marker = FakeFiller(lambda request: ["\x00"] * request.spans)
    for row in ask(probe(count=20), marker, items([text], range(1, 21))):
        pattern = ".+".join(re.escape(part) for part in row["payload"].split("\x00"))
        assert "\x00" in row["payload"]
        assert re.fullmatch(pattern, text, re.DOTALL)


def test_request_shows_the_text_with_numbered_sentinels():
    marker = FakeFiller(lambda request: ["X"] * request.spans)
    ask(probe(), marker, items(TEXTS[3:], [1]))
    (request,) = marker.requests
    found = re.findall(r"<extra_id_(\d+)>", request.text)
    assert found == [str(i) for i in range(request.spans)]
    parts = re.split(r"<extra_id_\d+>", request.text)
    assert re.fullmatch(".+".join(map(re.escape, parts)), TEXTS[3], re.DOTALL)


def test_repo_preset_masks_two_words_per_span_and_says_what_share():
    text = " ".join(f"w{i}" for i in range(95))
    marker = FakeFiller(lambda request: ["X"] * request.spans)
    (row,) = ask(probe(preset="repo"), marker, items([text], [1]))
    gone = {f"w{i}" for i in range(95)} - set(row["payload"].split())
    assert len(gone) == 14
    assert row["masked_share"] == pytest.approx(14 / 95)


def test_paper_preset_masks_a_fifth_of_the_tokens(filler):
    text = passages(1)[0]
    units = filler.token_spans(text)
    marker = FakeFiller(lambda request: ["X"] * request.spans)
    marker.token_spans = filler.token_spans
    (row,) = ask(probe(preset="paper"), marker, items([text], [1]))
    assert row["masked_share"] == pytest.approx(int(0.2 * len(units)) / len(units))


def test_paper_preset_makes_neighbors(filler):
    rows = ask(probe(preset="paper", count=4), filler, items(TEXTS[2:3], range(1, 5)))
    assert sum(row["error"] is None for row in rows) >= 3
    assert MaskFillNeighbors(model="t5", preset="paper").count == 20


# ------------------------------------------------------------------- what goes wrong


def test_attempts_are_bounded_and_counted():
    never = FakeFiller(lambda _: None)
    rows = ask(probe(attempts=4), never, items(TEXTS[:2], [1, 2]))
    assert len(never.requests) == 4 * 4
    for row in rows:
        assert (row["payload"], row["error"], row["attempts"]) == (None, UNFILLED, 4)


def test_each_attempt_masks_and_draws_anew():
    never = FakeFiller(lambda _: None)
    ask(probe(attempts=5), never, items(TEXTS[3:], [1]))
    assert len({request.key for request in never.requests}) == 5
    assert len({request.text for request in never.requests}) > 1


def test_only_what_failed_is_tried_again():
    failed = set()

    def second_time(request):
        first = request.text in seen
        seen.add(request.text)
        if not first and len(seen) == 1:
            failed.add(request.key)
            return None
        return ["X"] * request.spans

    seen: set[str] = set()
    once = FakeFiller(second_time)
    rows = ask(probe(), once, items(TEXTS[:2], [1, 2]))
    assert [row["attempts"] for row in rows] == [2, 1, 1, 1]
    assert len(once.requests) == 5


def test_attempt_of_one_neighbor_does_not_change_another():
    """The second draft of a neighbor is the same whether its batch mates failed or not."""
    first_fails = FakeFiller(lambda r: None if r.key in doomed else [f"{r.key}"] * r.spans)
    doomed: set[int] = set()
    some = items(TEXTS[:2], [1, 2])
    untouched = ask(probe(), first_fails, some)
    doomed |= {first_fails.requests[0].key}
    disturbed = ask(probe(), first_fails, some)
    assert disturbed[1:] == untouched[1:]
    assert disturbed[0]["attempts"] == 2


def test_one_failed_window_fails_the_attempt():
    text = " ".join(f"w{i}" for i in range(60))
    last = FakeFiller(lambda r: None if "w59" in r.text or "w58" in r.text else ["X"] * r.spans)
    rows = ask(probe(window=20, attempts=2), last, items([text], [1]))
    assert rows[0]["error"] == UNFILLED


def test_long_text_is_filled_window_by_window():
    text = " ".join(f"w{i}" for i in range(100))
    marker = FakeFiller(lambda r: ["X"] * r.spans)
    (row,) = ask(probe(window=20), marker, items([text], [1]))
    assert len(marker.requests) == 5
    assert len({request.key for request in marker.requests}) == 5
    assert row["payload"].split().count("X") == 5
    assert len(word_units(row["payload"])) == 95


def test_text_longer_than_a_t5_reads_has_neighbors(filler):
    text = " ".join(passages(8))
    (row,) = ask(probe(window=60), filler, items([text], [1]))
    assert row["error"] is None
    assert 0.12 < row["masked_share"] < 0.16
    assert row["payload"][-20:].split()[-1:] != []
    assert len(row["payload"]) > 0.8 * len(text)


@pytest.mark.parametrize("text", ["word", "  word  "])
def test_text_too_short_to_mask_says_so(filler, text):
    rows = ask(probe(), filler, items([text, TEXTS[0]], [1]))
    assert (rows[0]["payload"], rows[0]["error"]) == (None, NOTHING_TO_MASK)
    assert rows[1]["error"] is None, "its batch mate has a neighbor all the same"


def test_text_of_two_words_can_be_masked_whole():
    marker = FakeFiller(lambda r: ["X"] * r.spans)
    (row,) = ask(probe(), marker, items(["two words"], [1]))
    assert (row["payload"], row["masked_share"]) == ("X", 1.0)


def test_no_items_have_no_neighbors(filler):
    assert probe().ask(filler, []).num_rows == 0


def test_sentinel_in_a_text_is_not_taken_for_a_mask(filler):
    text = "He wrote <extra_id_0> and <extra_id_7> in the letter that he sent to his dear sister"
    marker = FakeFiller(lambda r: ["X"] * r.spans)
    ask(probe(count=30), marker, items([text], range(1, 31)))
    for request in marker.requests:
        assert re.findall(r"<extra_id_\d+>", request.text) == ["<extra_id_0>"]
    for row in ask(probe(), filler, items([text], [1, 2, 3])):
        kept = row["payload"] or text
        assert kept.count("<extra_id_") >= 1, "what was not masked must stay"


def test_key_holds_everything_that_changes_a_neighbor():
    plain = probe().key_parts()
    changes = [
        {"unit": "token"}, {"mask_share": 0.2}, {"span": 1}, {"buffer": 0}, {"window": 100},
        {"temperature": 0.9}, {"top_k": None}, {"max_fill_tokens": 9}, {"attempts": 6},
    ]  # fmt: skip
    for change in changes:
        assert probe(**change).key_parts() != plain, change
    assert probe(preset="repo", count=3).key_parts() == plain, "a preset is but its settings"
