"""Non-members that are members, or nearly so, are found, counted and named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from records_to_check import austen, check, images, photographs, some, split_digits, texts

from raymia.shift.overlap import near_duplicate_images, near_duplicate_texts, ngram_overlap


def changed(text, words, draws):
    """A text with some of its words replaced."""
    found = text.split()
    for place in draws.choice(len(found), words, replace=False):
        found[place] = "other"
    return " ".join(found)


def names(prefix, things):
    return [f"{prefix}{n}" for n in range(len(things))]


def jaccard(one, other):
    def triples(text):
        found = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return {tuple(found[n : n + 3]) for n in range(len(found) - 2)}

    return len(triples(one) & triples(other)) / len(triples(one) | triples(other))


def test_near_duplicates_of_texts_are_all_found_and_named():
    chosen, draws = some(austen(), 900), np.random.default_rng(0)
    members = chosen[:500]
    copies = [changed(text, 1 + n % 6, draws) for n, text in enumerate(members[:200])]
    others = [*chosen[500:], *copies]
    similar = {f"n{400 + n}": jaccard(members[n], copies[n]) for n in range(200)}
    expected = {name: value for name, value in similar.items() if value >= 0.5}
    found = near_duplicate_texts(members, others, names("m", members), names("n", others))
    assert 100 < len(expected) < 200
    assert found.non_members == len(expected)
    assert len(found.pairs) == 50
    for pair in found.pairs:
        assert pair.member == f"m{int(pair.non_member[1:]) - 400}"
        assert pair.similarity == pytest.approx(expected[pair.non_member])
    assert [p.similarity for p in found.pairs] == sorted(expected.values(), reverse=True)[:50]


def test_text_that_many_members_share_is_compared_with_a_few():
    copied = " ".join(f"word{n}" for n in range(40))
    members = [f"{copied} end {n}" for n in range(300)]
    found = near_duplicate_texts(members, [f"{copied} ending"], names("m", members), ["n0"])
    assert found.non_members == 1
    assert found.pairs[0].similarity > 0.8


def test_texts_without_three_words_have_no_near_duplicates():
    found = near_duplicate_texts(["one two", "three"], ["one two"], ["m0", "m1"], ["n0"])
    assert (found.non_members, found.pairs) == (0, [])


def share(member, other, n):
    """The share of one text's n-grams of words that stand in the other."""
    one, two = ([*text.lower().split()] for text in (member, other))
    known = {tuple(one[i : i + n]) for i in range(len(one) - n + 1)}
    grams = [tuple(two[i : i + n]) for i in range(len(two) - n + 1)]
    return sum(gram in known for gram in grams) / len(grams)


def test_overlap_of_n_grams_equals_a_transcription():
    member = " ".join(f"w{n}" for n in range(60))
    others = [
        " ".join([*(f"w{n}" for n in range(5, 45)), "x", "y"]),  # long, mostly
        " ".join([*(f"w{n}" for n in range(20)), *(f"x{n}" for n in range(20))]),  # long, in part
        " ".join(f"w{n}" for n in range(30, 40)),  # ten words: 8-grams
        " ".join(f"w{n}" for n in range(4)),  # too short
    ]
    found = ngram_overlap([member], others, ["a", "b", "c", "d"])
    shares = [share(member, others[0], 13), share(member, others[1], 13), 1.0]
    assert 0 < shares[1] < 0.8 < shares[0] < 1
    assert (found.looked_at, found.too_short) == (3, 1)
    assert found.mean_share == pytest.approx(np.mean(shares))
    assert (found.mostly, found.records) == (2, ["a", "c"])


def test_near_duplicates_of_images_are_found_and_named():
    """Photographs saved again as JPEG; the others are other clippings."""

    def saved(image):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=90)
        return np.asarray(Image.open(file)).transpose(2, 0, 1)

    members = photographs(0, 40, side=64, seed=1)
    others = np.array([*photographs(1, 40, side=64, seed=2), *map(saved, members[:10])])
    found = near_duplicate_images(members, others, names("m", members), names("n", others))
    pairs = {(pair.non_member, pair.member) for pair in found.pairs}
    assert found.non_members == len(pairs)
    assert pairs <= {(f"n{40 + n}", f"m{n}") for n in range(10)}
    assert len(pairs) >= 8


def test_images_of_one_color_are_no_near_duplicates():
    plain = np.array([np.full((1, 8, 8), level, np.uint8) for level in (10, 200)])
    assert near_duplicate_images(plain[:1], plain[1:], ["m"], ["n"]).non_members == 0


def test_different_digits_are_no_near_duplicates():
    found = check(images(*split_digits(150, 0)))
    assert found.near_duplicates.non_members <= 1
    assert found.ngram_overlap is None


def test_the_gate_names_near_duplicates_by_record_id():
    chosen = some(austen(), 60)
    others = [*chosen[31:], chosen[4] + " Indeed!"]
    found = check(texts(chosen[:30], others))
    assert found.near_duplicates.non_members == 1
    (pair,) = found.near_duplicates.pairs
    assert (pair.non_member, pair.member) == ("n29", "m4")
    assert found.ngram_overlap.records == ["n29"]
