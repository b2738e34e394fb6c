"""Which words are masked."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymia.neighbors.masking import choose_spans, mask_text, replace_spans, word_units
from raymia.util.draws import generator

REPO = {"share": 0.3, "span": 2, "buffer": 1}
PAPER = {"share": 0.2, "span": 1, "buffer": 0}
TEXTS = st.text(st.sampled_from("ab .,\n\t<é"), max_size=200)


def starts(units, seed=0, **settings):
    return choose_spans(units, draws=generator("test", seed), **settings)


@pytest.mark.parametrize("words", [14, 40, 95, 200, 250])
def test_repo_masks_int_of_three_tenths_over_four_spans_of_two_words(words):
    assert len(starts(words, **REPO)) == int(0.3 * words / 4)


def test_repo_masks_seven_spans_of_95_words():
    assert len(starts(95, **REPO)) == 7


@pytest.mark.parametrize("words", [2, 5, 13])
def test_short_text_has_one_span_at_least(words):
    assert len(starts(words, **REPO)) == 1


@pytest.mark.parametrize("tokens", [5, 10, 64, 250])
def test_paper_masks_a_fifth_of_the_tokens(tokens):
    assert len(starts(tokens, **PAPER)) == int(0.2 * tokens)


@pytest.mark.parametrize("words", [0, 1])
def test_text_shorter_than_a_span_has_none(words):
    assert starts(words, **REPO) == []


@given(
    st.integers(0, 120), st.floats(0.01, 0.99), st.integers(1, 5), st.integers(0, 3), st.integers()
)
def test_spans_fit_and_keep_their_distance(units, share, span, buffer, seed):
    chosen = starts(units, seed, share=share, span=span, buffer=buffer)
    assert chosen == sorted(chosen)
    assert len(chosen) <= max(1, int(share * units / (span + 2 * buffer)))
    assert all(0 <= start <= units - span for start in chosen)
    assert all(b - a >= span + buffer for a, b in pairwise(chosen))


def test_every_place_is_masked_as_often_as_another():
    counts = np.zeros(20)
    for seed in range(4_000):
        for start in starts(20, seed, share=0.2, span=1, buffer=0):
            counts[start] += 1
    assert counts.sum() == 4 * 4_000
    assert counts.min() > 0.85 * counts.mean()
    assert counts.max() < 1.15 * counts.mean()


# --------------------------------------------------------------------------- texts


def masked(text, seed=0, window=250, **settings):
    return mask_text(
        text, word_units(text), window=window, draws=generator("test", seed), **settings
    )


@given(TEXTS)
def test_words_are_what_white_space_parts(text):
    units = word_units(text)
    assert [text[b:e] for b, e in units] == text.split()


@settings(max_examples=200)
@given(TEXTS, st.integers(0, 5), st.sampled_from([REPO, PAPER]), st.integers(2, 12))
def test_masked_stretches_are_whole_words_of_their_window(text, seed, preset, window):
    edges = {edge for unit in word_units(text) for edge in unit}
    windows = masked(text, seed, window, **preset)
    for place in windows:
        for begin, end in place.spans:
            assert place.start <= begin < end <= place.end
            assert {begin, end} <= edges
            assert text[begin:end].strip() == text[begin:end] != ""
    spans = [span for place in windows for span in place.spans]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


def test_adjoining_masks_of_a_window_become_one():
    """Two sentinels with nothing between them are not what a T5 was trained on."""
    for seed in range(30):
        text = "a b c d e f g h i j"
        for place in masked(text, seed, share=0.6, span=1, buffer=0):
            for (_, end), (begin, _) in pairwise(place.spans):
                assert text[end:begin].strip()
            assert place.units == sum(len(text[b:e].split()) for b, e in place.spans) == 6


def test_long_text_is_masked_in_every_window():
    text = " ".join(f"w{i}" for i in range(100))
    places = masked(text, window=20, **REPO)
    assert len(places) == 5
    assert [len(text[p.start : p.end].split()) for p in places] == [20] * 5
    assert all(p.units == 2 for p in places)


@given(TEXTS, st.lists(st.text("xy", max_size=3), min_size=1, max_size=4), st.integers(0, 9))
def test_replacing_touches_nothing_but_the_spans(text, fills, seed):
    spans = [s for place in masked(text, seed, **REPO) for s in place.spans]
    replacements = [(span, fills[i % len(fills)]) for i, span in enumerate(spans)]
    expected, position = "", 0
    for (begin, end), fill in replacements:
        expected += text[position:begin] + fill
        position = end
    assert replace_spans(text, replacements) == expected + text[position:]
    assert replace_spans(text, replacements[::-1]) == expected + text[position:]
    assert replace_spans(text, [((b, e), text[b:e]) for b, e in spans]) == text
