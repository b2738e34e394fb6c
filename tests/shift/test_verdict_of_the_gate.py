"""The gate is silent where the split is random, and loud where it is not."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from records_to_check import (
    EARLY,
    austen,
    check,
    guess,
    images,
    king_james,
    photographs,
    some,
    split_digits,
    texts,
)
from scipy.stats import binom

from raymia.results.wording import shift_line
from raymia.shift.check import check_shift, most_for_guessers, sampled_rows

SEEDS = 20
# At an error rate of 5 %, more false alarms among 20 have a chance below 2 %.
MAX_ALARMS = int(binom.ppf(0.98, SEEDS, 0.05))


@pytest.mark.long
def test_random_splits_of_texts_are_silent():
    alarms = 0
    for seed in range(SEEDS):
        chosen = some(austen(), 120, seed)
        alarms += check(texts(chosen[:60], chosen[60:]), seed).state == "shift"
    assert alarms <= MAX_ALARMS


@pytest.mark.long
def test_random_splits_of_images_are_silent():
    found = [check(images(*split_digits(60, seed)), seed).state for seed in range(SEEDS)]
    assert found.count("shift") <= MAX_ALARMS
    assert "not_checked" not in found


def test_non_members_from_another_source_are_a_shift():
    found = check(texts(some(austen(), 60), some(king_james(), 60)))
    assert found.state == "shift"
    assert found.strongest.name == "text"
    assert found.strongest.auc.low > 0.8
    assert found.strongest.corrected_p_value <= 0.05


def test_non_members_from_later_works_of_one_author_are_a_shift():
    late = ("Emma", "Persuasion", "Mansfield Park")
    found = check(texts(some(austen(EARLY), 200), some(austen(late), 200)))
    assert found.state == "shift"
    assert guess(found, "text").auc.low > 0.6


def test_a_year_that_one_in_ten_texts_names_is_a_shift():
    def dated(passages, year):
        return [t if n % 10 else f"{t} It was in {year}." for n, t in enumerate(passages)]

    chosen = some(austen(), 800)
    found = check(texts(dated(chosen[:400], 2022), dated(chosen[400:], 2024)))
    assert found.state == "shift"
    assert found.strongest.name == "markers"


def test_longer_members_are_a_shift_whichever_side_is_longer():
    chosen = some(austen(), 120)
    long, short = chosen[:60], [text[:90] for text in chosen[60:]]
    for members, others, higher in ((long, short, True), (short, long, False)):
        length = guess(check(texts(members, others)), "length")
        assert length.higher_is_member is higher
        assert length.auc.value > 0.9
        assert length.corrected_p_value <= 0.05


def test_images_of_another_source_are_a_shift():
    found = check(images(photographs(0, 60), photographs(1, 60)))
    assert found.state == "shift"
    assert found.strongest.auc.low > 0.7


def test_images_compressed_once_more_are_a_shift():
    def compressed(image):
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "JPEG", quality=60)
        return np.asarray(Image.open(file)).transpose(2, 0, 1)

    members, others = photographs(0, 100, seed=1), photographs(0, 100, seed=2)
    found = check(images(members, [compressed(image) for image in others]))
    assert found.state == "shift"
    assert guess(found, "statistics").corrected_p_value <= 0.05


def test_captions_of_another_source_are_a_shift():
    members, others = split_digits(60, 0)
    captions = [*some(austen(), 60), *some(king_james(), 60)]
    found = check(images(members, others, captions))
    assert found.state == "shift"
    assert found.strongest.name == "caption"


def test_a_reference_alone_that_tells_members_is_a_shift_and_one_that_does_not_is_none():
    chosen, draws = some(austen(), 120), np.random.default_rng(0)
    telling = draws.normal(size=120) + 1.5 * (np.arange(120) < 60)
    telling[[3, 70]] = np.nan
    references = {"oracle": telling, "base": draws.normal(size=120)}
    found = check(texts(chosen[:60], chosen[60:], references=references))
    assert found.state == "shift"
    assert found.strongest.name == "loss@oracle"
    assert (found.strongest.n_members, found.strongest.n_non_members) == (59, 59)
    assert guess(found, "loss@base").corrected_p_value > 0.05


def test_a_reference_without_answers_is_no_guesser():
    chosen = some(austen(), 60)
    records = texts(chosen[:30], chosen[30:], references={"base": np.full(60, np.nan)})
    assert {one.name for one in check(records).guesses} == {"text", "markers", "length", "zlib"}


def test_twice_the_same_check_is_the_same_result():
    records = texts(some(austen(), 60), some(king_james(), 60))
    assert check(records, seed=3) == check(records, seed=3)


def test_order_of_the_guesses_is_by_strength():
    found = check(texts(some(austen(), 60), some(king_james(), 60)))
    strengths = [(one.corrected_p_value > 0.05, -one.auc.value) for one in found.guesses]
    assert strengths == sorted(strengths)


@pytest.mark.parametrize(
    ("members", "others", "reason"),
    [
        (0, 60, "there are no members"),
        (60, 0, "there are no non-members"),
        (24, 60, "it takes at least 25 members and 25 non-members, each group counting once; "
         "there are 24 members and 60 non-members"),
    ],
)  # fmt: skip
def test_too_few_records_are_not_checked(members, others, reason):
    chosen = some(austen(), 120)
    found = check(texts(chosen[:members], chosen[60 : 60 + others]))
    assert (found.state, found.reason) == ("not_checked", reason)
    assert (found.n_members, found.n_non_members, found.guesses) == (members, others, [])


def test_copies_are_looked_for_in_as_few_records_as_there_are():
    """The tests against chance rest on them, and they are of few records as well as of many."""
    chosen = some(austen(), 40)
    members = [*chosen[:10], *(f"{chosen[0]} {word}" for word in "abcdefghij")]
    for others in (chosen[20:], []):
        blind = check_shift(texts(members, others), error_rate=0.05, seed=0)
        assert blind.check.state == "not_checked"
        assert (blind.check.copies.members, blind.check.copies.groups) == (11, 1)
        assert set(blind.clusters) == {"m0", *(f"m{n}" for n in range(10, 20))}
        assert (blind.check.n_searched, blind.check.n_not_searched) == (20 + len(others), 0)
    digits, _ = split_digits(6, 0)
    pictures = images([*digits, *digits], [])
    assert check_shift(pictures, error_rate=0.05, seed=0).check.copies.groups == 6


def test_too_few_groups_are_not_checked():
    chosen = some(austen(), 120)
    units = [f"group {n // 6}" for n in range(120)]
    found = check(texts(chosen[:60], chosen[60:], units))
    assert found.state == "not_checked"
    assert "60 members in 10 groups and 60 non-members in 10 groups" in found.reason


@pytest.mark.parametrize(
    ("members", "others", "sample", "left"),
    [
        (60, 70, 100, (60, 70)),
        (60, 70, 50, (50, 50)),
        (100, 30_000, 20_000, (100, 20_000)),
    ],
)
def test_sample_is_of_each_kind(members, others, sample, left):
    is_member = np.arange(members + others) % (members + others) < members
    rows = sampled_rows(is_member, sample, 0)
    assert (is_member[rows].sum(), (~is_member[rows]).sum()) == left
    assert len(set(rows.tolist())) == len(rows)
    np.testing.assert_array_equal(rows, np.sort(rows))
    np.testing.assert_array_equal(rows, sampled_rows(is_member, sample, 0))


@pytest.mark.parametrize(
    ("members", "others", "most"), [(100, 30_000, 2_000), (1_000, 30_000, 10_000), (60, 70, 2_000)]
)
def test_guessers_are_asked_about_as_many_of_the_larger_kind_as_can_still_tell(
    members, others, most
):
    is_member = np.arange(members + others) < members
    assert most_for_guessers(is_member) == most_for_guessers(~is_member) == most


@pytest.mark.long
def test_an_author_per_group_is_no_shift_if_groups_are_split_at_random():
    """Each group has a word of its own, so that a record tells its group."""
    chosen = some(austen(), 240)
    marks = some([f"{first}{second}" for first in "abcdefgh" for second in "qrstuvwx"], 60)
    marked = [f"{text} {marks[n // 4] * 4}" for n, text in enumerate(chosen)]
    units = [f"group {n // 4}" for n in range(240)]
    assert check(texts(marked[:120], marked[120:])).state == "shift"
    assert check(texts(marked[:120], marked[120:], units)).state == "no_shift_found"


def test_a_shift_in_prompts_alone_is_named_as_that():
    answers = some(austen(), 120)
    prompts = [*some(austen(), 60, 1), *some(king_james(), 60)]
    found = check(replace(texts(answers[:60], answers[60:]), prompts=prompts))
    assert found.state == "shift"
    assert found.strongest.name == "prompt"
    assert "prompts (which are not scored)" in shift_line(found)
    assert guess(found, "text").corrected_p_value > 0.05
