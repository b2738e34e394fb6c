"""Neighbors by word substitution: functions of seed, record and index alone, with no model."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import load_script
from tiny_models import passages

from raymia.neighbors.makers import WordListLoader, neighbor_maker
from raymia.neighbors.substitute import NO_WORD, SubstituteQuestion
from raymia.neighbors.word_list import WORD, WORD_LIST, WordList, load_word_list
from raymia.questions.base import Item
from raymia.records.texts import record_id
from raymia.spec import PoolSpec, SubstituteNeighbors
from raymia.util.draws import generator

WORDS = load_word_list()
TEXTS = passages(6)


def probe(seed=0, **settings):
    return SubstituteQuestion(SubstituteNeighbors(kind="substitute", **settings), seed)


def items(texts, indices):
    return [Item(record_id(text), index, text) for text in texts for index in indices]


def ask(asked, some, words=WORDS):
    return asked.ask(words, some).to_pylist()


def replaced(text, neighbor):
    """Pairs of words that differ; fails where anything but a word changed."""
    assert WORD.split(text) == WORD.split(neighbor)
    pairs = zip(WORD.findall(text), WORD.findall(neighbor), strict=True)
    return [(old, new) for old, new in pairs if old != new]


# ------------------------------------------------------- promise 1, and the first n of more


def test_neighbor_depends_on_seed_record_and_index_alone():
    some = items(TEXTS, range(1, 5))
    rows = ask(probe(), some)
    assert ask(probe(), some[::-1])[::-1] == rows
    assert [ask(probe(count=50), [item])[0] for item in some] == rows
    assert len({row["payload"] for row in rows}) == len(rows)
    assert all(a != b for a, b in zip(ask(probe(seed=1), some), rows, strict=True))


def test_key_holds_what_changes_a_neighbor_and_not_how_many_there_are():
    plain = probe().key_parts()
    assert probe(count=3).key_parts() == plain
    assert probe(seed=1).key_parts() != plain
    assert probe(share=0.2).key_parts() != plain


def test_word_list_is_in_the_fingerprint_and_checked_on_the_worker():
    maker = neighbor_maker(probe().spec, 0, None, PoolSpec())
    assert maker.fingerprint == WORDS.fingerprint
    assert maker.loader.checkpoint is None
    assert maker.loader.load().words == WORDS.words
    assert WordList(WORDS.words[::-1]).fingerprint != WORDS.fingerprint
    with pytest.raises(Exception, match="install the same raymia on every machine"):
        WordListLoader("another").load()


# --------------------------------------------------------------------- what a neighbor is


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.99])
def test_share_of_the_words_is_replaced_and_all_else_stays(share):
    for row, item in zip(
        ask(probe(share=share), items(TEXTS, [1, 2])), items(TEXTS, [1, 2]), strict=True
    ):
        words = len(WORD.findall(item.payload))
        wanted = max(1, round(share * words))
        assert len(replaced(item.payload, row["payload"])) == wanted
        assert row["masked_share"] == pytest.approx(wanted / words)
        assert (row["attempts"], row["error"]) == (1, None)


def test_every_word_is_replaced_as_often_as_another():
    text = " ".join(f"{a}{b}" for a in "bcdf" for b in ("at", "in", "on", "up", "ox"))
    counts = Counter(
        old
        for row in ask(probe(), items([text], range(1, 1_001)))
        for old, _ in replaced(text, row["payload"])
    )
    assert sum(counts.values()) == 3 * 1_000
    assert len(counts) == 20
    assert min(counts.values()) > 0.6 * 150
    assert max(counts.values()) < 1.4 * 150


def test_capitals_and_punctuation_are_kept():
    text = "“THEY said: Mary's dog—the Big one—isn’t here!”  (I\tknow.)"
    for row in ask(probe(share=0.99), items([text], range(1, 30))):
        pairs = replaced(text, row["payload"])
        assert len(pairs) == len(WORD.findall(text))
        for old, new in pairs:
            assert new.lower() != old.lower()
            assert new.isupper() if len(old) > 1 and old.isupper() else True
            assert new[0].isupper() or not old[0].isupper()


@given(st.text(max_size=60))
def test_any_text_has_a_neighbor_or_a_reason(text):
    (row,) = ask(probe(), [Item("r", 1, text)])
    if re.search(r"[^\W\d_]", text):
        assert row["payload"] != text
        assert row["error"] is None
    else:
        assert (row["payload"], row["error"]) == (None, NO_WORD)


def test_text_in_another_script_has_neighbors():
    (row,) = ask(probe(), [Item("r", 1, "Это просто текст")])
    assert row["payload"] != "Это просто текст"


# ------------------------------------------------------------------------ the word list


def test_list_has_no_word_twice_and_begins_with_the_commonest():
    assert len(WORDS.ranks) == len(WORDS.words) > 4_000
    assert WORDS.words[:4] == ("the", "to", "and", "of")
    assert "elinor" not in WORDS.ranks


def test_shipped_list_is_what_the_job_makes():
    assert (
        load_script("tools/build_word_list.py").common_words()
        == WORD_LIST.read_text(encoding="utf-8").split()
    )


@pytest.mark.parametrize("rank", [1, 2, 15, 40, 1_000, 4_000])
def test_drawn_words_are_uniform_over_ranks_from_half_to_twice(rank):
    word = WORDS.words[rank - 1]
    draws = generator("test", rank)
    drawn = [WORDS.ranks[WORDS.other(word, draws).lower()] for _ in range(4_000)]
    first, last = (rank + 1) // 2, min(max(2 * rank, 20), len(WORDS.words))
    allowed = [other for other in range(first, last + 1) if other != rank]
    assert set(drawn) <= set(allowed)
    assert abs(np.mean(drawn) - np.mean(allowed)) < 5 * np.std(allowed) / np.sqrt(len(drawn))
    if len(allowed) < 100:
        assert set(drawn) == set(allowed)


def test_unknown_word_counts_as_rare():
    draws = generator("test")
    drawn = {WORDS.ranks[WORDS.other("zyzzyva", draws).lower()] for _ in range(4_000)}
    assert min(drawn) == (len(WORDS.words) + 2) // 2
    assert max(drawn) >= len(WORDS.words) - 10
