"""Whether texts are alike, and whether they repeat themselves."""

import numpy as np
import pytest
from tiny_models import passages

from raymia.shift.alike import commonest_beginning, repetition, separation_auc


def test_texts_of_one_source_are_not_told_apart_and_those_of_two_are():
    texts = passages(160)
    assert separation_auc(texts[::2], texts[1::2]) == pytest.approx(0.5, abs=0.12)
    assert separation_auc([text.upper() for text in texts[::2]], texts[1::2]) > 0.95


def test_lengths_alone_do_not_tell_texts_apart():
    texts = passages(160)
    longer = [text + " " + text for text in texts[1::2]]
    assert separation_auc(texts[::2], longer) == pytest.approx(0.5, abs=0.15)


def test_few_texts_say_nothing():
    assert separation_auc(passages(24), passages(80)) is None


def test_repetition_is_the_share_of_fours_that_stood_before():
    def transcribed(text):
        words = text.split()
        fours = [tuple(words[n : n + 4]) for n in range(len(words) - 3)]
        return 1 - len(set(fours)) / len(fours) if fours else 0.0

    draws = np.random.default_rng(0)
    texts = [" ".join(draws.choice(list("abc"), size=n)) for n in (0, 3, 4, 30, 90)]
    assert repetition(texts) == pytest.approx([transcribed(text) for text in texts])
    assert repetition([]) == []


def test_a_refusal_is_a_beginning_that_many_answers_have():
    refusals = [f"I'm sorry, but I cannot say what {n} is." for n in range(6)]
    assert commonest_beginning([*refusals, *passages(4)]) == 0.6
    assert commonest_beginning([]) == 0
