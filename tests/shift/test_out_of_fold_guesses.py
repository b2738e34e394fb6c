"""Classifiers judge what they were not fitted on, and equal a transcription of their formulas."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from records_to_check import austen, some
from scipy import stats
from sklearn.metrics import roc_auc_score

from raymia.metrics.delong import auc_variance, difference_of, placements
from raymia.metrics.learning import fold_of, one_thread
from raymia.shift import cross_fitting, texts
from raymia.shift import ngrams as module_of_n_grams
from raymia.shift.cross_fitting import FOLDS, KernelRidge, guess_out_of_fold
from raymia.shift.images import ImageFeatures
from raymia.shift.labelings import aucs, p_value, random_labelings, widening
from raymia.shift.ngrams import characters, ngrams, words
from raymia.shift.texts import COLUMNS, Markers, TextFeatures
from raymia.util.draws import generator

DRAWS = generator("tests of the shift gate")


class Spy:
    """A classifier that remembers what it was fitted on and asked about."""

    def __init__(self):
        self.seen = []

    def guess(self, fitted, judged, labels):
        self.seen.append((fitted.tolist(), judged.tolist()))
        assert len(labels) == len(fitted)
        return np.zeros((len(judged), labels.shape[1]), np.float32)


def test_every_record_is_judged_once_by_what_was_fitted_without_its_group():
    units = [f"group {n // 3}" for n in range(60)]
    spy = Spy()
    labels = np.arange(60)[:, None] % 2 == 0
    guess_out_of_fold(spy, labels, fold_of(units, FOLDS, "test"), DRAWS)
    assert sorted(row for _, judged in spy.seen for row in judged) == list(range(60))
    for fitted, judged in spy.seen:
        assert len(fitted) + len(judged) == 60
        assert not {units[row] for row in fitted} & {units[row] for row in judged}


def test_more_records_than_can_be_fitted_are_all_judged(monkeypatch):
    monkeypatch.setattr(cross_fitting, "MAX_FITTED", 10)
    spy = Spy()
    guess_out_of_fold(spy, np.zeros((60, 1), bool), np.arange(60) % FOLDS, DRAWS)
    assert all(len(fitted) == 10 == len(set(fitted)) for fitted, _ in spy.seen)
    assert sorted(row for _, judged in spy.seen for row in judged) == list(range(60))


def strings(text, sizes, units):
    """The n-grams of a text as tuples, counted."""
    whole = units(text)
    return Counter(tuple(whole[i : i + n]) for n in sizes for i in range(len(whole) - n + 1))


def in_words(text):
    return "".join(c if c.isalnum() else " " for c in text.lower().replace("_", "a")).split()


def column(gram):
    """Where the package counts an n-gram; the only thing taken from it."""
    of_words = len(gram[0]) > 1 or len(gram) < 3
    units = words([" ".join(gram)]) if of_words else characters(["".join(gram)])
    (hashed,) = ngrams(units, len(gram)).hashes
    return len(gram), int(hashed % np.uint64(COLUMNS))


def tfidf(counted, fitted, judged):
    """(1 + log count) (1 + log((1 + n) / (1 + df))), rows of length 1; idf of ``fitted``."""
    rows = [Counter() for _ in counted]
    for row, grams in zip(rows, counted, strict=True):
        for gram, count in grams.items():
            row[column(gram)] += count
    df = Counter(place for n in fitted for place in rows[n])
    places = sorted({place for row in rows for place in row})
    matrix = np.zeros((len(rows), len(places)))
    for n, row in enumerate(rows):
        for at, place in enumerate(places):
            if row[place]:
                idf = 1 + np.log((1 + len(fitted)) / (1 + df[place]))
                matrix[n, at] = (1 + np.log(row[place])) * idf
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix[fitted], matrix[judged]


@pytest.mark.long
def test_text_guesser_equals_a_transcription():
    passages = [text[:70] for text in some(austen(), 24)]
    fitted, judged = np.arange(18), np.arange(18, 24)
    labels = np.arange(18) % 3 == 0
    shape = np.array(
        [
            [
                np.log(1 + len(t)), np.log(1 + len(t.split())), len(t) / len(t.split()),
                *(np.mean([getattr(c, kind)() for c in t])
                  for kind in ("isupper", "isdigit", "isspace", "isalnum", "isascii")),
            ]
            for t in passages
        ]
    )  # fmt: skip
    deviation = shape[fitted].std(axis=0)
    shape = (shape - shape[fitted].mean(axis=0)) / np.where(deviation > 1e-12, deviation, 1)
    blocks = [
        (shape[fitted] / np.sqrt(8), shape[judged] / np.sqrt(8)),
        tfidf([strings(t, (1, 2), in_words) for t in passages], fitted, judged),
        tfidf([strings(t, (3, 4), list) for t in passages], fitted, judged),
    ]
    known, new = (np.hstack([block[side] for block in blocks]) for side in (0, 1))
    new, known = new - known.mean(axis=0), known - known.mean(axis=0)
    scale = np.mean(np.sum(known**2, axis=1))
    signs = np.where(labels, 1.0, -1.0) - np.where(labels, 1.0, -1.0).mean()
    weights = np.linalg.solve(known.T @ known / scale + np.eye(known.shape[1]), known.T @ signs)
    expected = new @ weights / scale
    found = KernelRidge(TextFeatures(passages)).guess(fitted, judged, labels[:, None])
    np.testing.assert_allclose(found[:, 0], expected, atol=2e-5)


@pytest.mark.long
def test_markers_equal_a_transcription():
    passages = some(austen(), 80)
    labels = np.arange(60) % 2 == 0
    for n in range(0, 36, 2):
        passages[n] += " in London"
    for n in range(1, 30, 2):
        passages[n] = f"Bath {passages[n]}"
    passages[60:62] = ["He went on to London", "Bath is far"]
    fitted, judged = np.arange(60), np.arange(60, 80)
    stands = [set(strings(text, (1, 2), in_words)) for text in passages]
    odds = {}
    for gram in set().union(*stands[:60]):
        texts = np.array([gram in stands[n] for n in range(60)])
        k, members = texts.sum(), (texts & labels).sum()
        deviation = np.sqrt(stats.hypergeom(60, 30, k).var())
        if k >= 9 and deviation and abs(members - k / 2) >= 3 * deviation:
            odds[gram] = np.log((members + 0.5) / 31) - np.log((k - members + 0.5) / 31)
    assert ("london",) in odds
    assert ("bath",) in odds
    expected = [sum(odds.get(gram, 0) for gram in stands[n]) for n in judged]
    found = Markers(passages).guess(fitted, judged, labels[:, None])[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] > 0 > found[1]


@pytest.mark.long
def test_guesses_on_many_labelings_are_those_of_each_alone(monkeypatch):
    monkeypatch.setattr(texts, "_AT_ONCE", 3)
    passages = some(austen(), 60)
    labels = np.random.default_rng(0).random((60, 7)) < 0.5
    folds = np.arange(60) % FOLDS
    for classifier in (KernelRidge(TextFeatures(passages)), Markers(passages)):
        together = guess_out_of_fold(classifier, labels, folds, DRAWS)
        for n in range(7):
            alone = guess_out_of_fold(classifier, labels[:, [n]], folds, DRAWS)
            np.testing.assert_allclose(together[:, n], alone[:, 0], atol=1e-6)


def test_guesses_are_the_same_to_the_bit_however_few_texts_are_looked_at_at_once(monkeypatch):
    passages = some(austen(), 60)
    labels = np.random.default_rng(0).random((60, 7)) < 0.5
    folds = np.arange(60) % FOLDS

    def guesses():
        made = KernelRidge(TextFeatures(passages)), Markers(passages)
        return [guess_out_of_fold(one, labels, folds, DRAWS).tobytes() for one in made]

    expected = guesses()
    monkeypatch.setattr(texts, "_TEXTS_AT_ONCE", 5)
    monkeypatch.setattr(module_of_n_grams, "_AT_ONCE", 50)
    monkeypatch.setattr(cross_fitting, "_AT_ONCE", 3)
    assert guesses() == expected


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_n_grams_do_not_depend_on_how_many_are_put_together_at_once(monkeypatch, at_once):
    monkeypatch.setattr(module_of_n_grams, "_AT_ONCE", at_once)
    said = ["", "a b c d", "", "b", "a b c", ""]
    grams = ngrams(words(said), 3)
    pairs = {(tuple(t.split()[i : i + 3])) for t in said for i in range(len(t.split()) - 2)}
    assert grams.owners.tolist() == [1, 1, 4]
    assert grams.hashes[0] == grams.hashes[2] != grams.hashes[1]
    assert len({*grams.hashes.tolist()}) == len(pairs) == 2
    assert ngrams(words(["a b"]), 3).hashes.size == ngrams(words([]), 3).hashes.size == 0


def test_n_grams_are_runs_within_one_text():
    grams = ngrams(words(["One, two three", "", "two three four", "four"]), 2)
    assert grams.owners.tolist() == [0, 0, 2, 2]
    assert grams.hashes[1] == grams.hashes[2]
    assert len(set(grams.hashes.tolist())) == 3
    assert grams.counts.tolist() == [2, 0, 2, 0]


def test_signs_of_scripts_without_spaces_are_words():
    assert ngrams(words(["東京は雨 rain"]), 1).counts.tolist() == [5]


def test_areas_on_many_labelings_are_those_of_each():
    draws = np.random.default_rng(1)
    labels = draws.random((40, 150)) < 0.4
    scores = draws.integers(0, 9, 40).astype(float)
    own = draws.integers(0, 9, (40, 150)).astype(float)
    of_one, of_each = aucs(scores, labels), aucs(own, labels)
    for n in (0, 99, 100, 149):
        assert of_one[n] == pytest.approx(roc_auc_score(labels[:, n], scores))
        assert of_each[n] == pytest.approx(roc_auc_score(labels[:, n], own[:, n]))


def test_labelings_keep_groups_whole_and_mixed_groups_mixed():
    units = [*(f"pure {n // 2}" for n in range(20)), *["mixed"] * 6]
    labels = np.array([n < 8 for n in range(20)] + [True, True, False, False, False, False])
    found = random_labelings(labels, units, 400, np.random.default_rng(0))
    np.testing.assert_array_equal(found[:, 0], labels)
    assert (found.sum(axis=0) == labels.sum()).all()
    assert (found[20:].sum(axis=0) == 2).all()
    np.testing.assert_array_equal(found[0:20:2], found[1:20:2])
    # Each pure group is a member in 4 of 10 labelings, each record of the mixed one in 2 of 6.
    rates = found[:, 1:].mean(axis=1)
    assert np.abs(rates[:20] - 0.4).max() < 4 * np.sqrt(0.24 / 400)
    assert np.abs(rates[20:] - 1 / 3).max() < 4 * np.sqrt(0.2222 / 400)


def test_p_value_counts_the_labels_as_they_are_among_the_labelings():
    found = np.array([0.6, 0.5, 0.6, 0.35, 0.7])
    assert p_value(found, 1) == pytest.approx(3 / 5)
    assert p_value(found, 2) == pytest.approx(4 / 5)


@pytest.mark.long
def test_what_an_attack_adds_to_a_fitted_guess_is_called_a_difference_no_more_than_stated():
    """Both are noise. DeLong's test alone takes the guesses for scores that nobody fitted."""
    differs = {"widened": 0, "DeLong": 0}
    for seed in range(200):
        draws = np.random.default_rng(seed)
        classifier = KernelRidge(ImageFeatures(draws.normal(size=(60, 20))))
        labels = random_labelings(np.arange(60) < 30, [str(n) for n in range(60)], 50, draws)
        with one_thread():
            places = guess_out_of_fold(classifier, labels, np.arange(60) % FOLDS, draws)
        attack, guess = (placements(s, labels[:, 0]) for s in (draws.normal(size=60), places[:, 0]))
        beyond = (widening(aucs(places, labels), 30, 30) ** 2 - 1) * auc_variance(guess)
        differs["widened"] += difference_of(attack, guess, beyond=beyond).p_value <= 0.05
        differs["DeLong"] += difference_of(attack, guess).p_value <= 0.05
    assert differs["widened"] <= stats.binom(200, 0.05).ppf(0.999)
    assert differs["DeLong"] > stats.binom(200, 0.05).ppf(0.999)


@pytest.mark.long
def test_p_values_are_honest_where_a_test_of_delongs_is_not():
    """Noise, split at random: fitted across folds, the AUC varies more than DeLong says."""
    alarms, by_delong, times, factors = 0, 0, 200, []
    for seed in range(times):
        draws = np.random.default_rng(seed)
        classifier = KernelRidge(ImageFeatures(draws.normal(size=(40, 20))))
        labels = random_labelings(np.arange(40) < 20, [str(n) for n in range(40)], 99, draws)
        with one_thread():
            places = guess_out_of_fold(classifier, labels, np.arange(40) % FOLDS, draws)
        found = aucs(places, labels)
        alarms += p_value(found, 1) <= 0.1
        spread = np.sqrt(auc_variance(placements(places[:, 0], labels[:, 0])))
        by_delong += found[0] - 0.5 >= stats.norm.isf(0.1) * spread
        factors.append(widening(found, 20, 20))
    low, high = stats.binom(times, 0.1).ppf([0.0005, 0.9995])
    assert low <= alarms <= high
    assert alarms < by_delong
    assert 1.2 < np.mean(factors) < 1.6
