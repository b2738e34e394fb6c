"""Near-copies within one side are found, proposed as groups, and count as what they are."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from records_to_check import austen, images, photographs, some, texts

from raymia.metrics.dataset import infer_dataset
from raymia.metrics.learning import Features
from raymia.results.wording import overlap_lines
from raymia.scoring.reduction import infer_datasets
from raymia.shift.check import check_shift
from raymia.shift.copies import copied_images, copied_texts, copies_within
from raymia.shift.images import ImagesOneByOne
from raymia.shift.result import ShiftCheck
from raymia.spec import MetricsSpec


def check_of(clusters, sizes):
    ids = [[f"{kind}{n}" for n in range(size)] for kind, size in zip("mn", sizes, strict=True)]
    return ShiftCheck(
        state="no_shift_found", error_rate=0.05, n_members=sizes[0], n_non_members=sizes[1],
        copies=copies_within(clusters, ids),
    )  # fmt: skip


def test_copies_are_looked_for_in_all_of_the_larger_kind(monkeypatch):
    """Guessers are asked about a part of it, which is no reason to leave copies unfound."""
    monkeypatch.setattr("raymia.shift.check.NEVER_CUT_BELOW", 30)
    monkeypatch.setattr("raymia.shift.check.TIMES_LARGER", 1)
    chosen = some(austen(), 90)
    others = [*chosen[30:], *(f"{text} indeed" for text in chosen[30:])]
    known = replace(texts(chosen[:30], others), left_out=7)
    blind = check_shift(known, error_rate=0.05, seed=0)
    found = blind.check
    assert (found.n_members, found.n_non_members, found.left_out) == (30, 30, 97)
    assert (found.n_searched, found.n_not_searched) == (150, 7)
    assert (found.copies.non_members, found.copies.groups) == (120, 60)
    assert len(blind.clusters) == 120
    assert len(blind.scores) == 60


def test_images_are_gone_through_one_by_one_and_found_alike(monkeypatch):
    """So many images fit into no memory; of their copies and guesses nothing changes."""
    monkeypatch.setattr("raymia.shift.check.NEVER_CUT_BELOW", 30)
    monkeypatch.setattr("raymia.shift.check.TIMES_LARGER", 1)
    taken = photographs(0, 60, side=64)
    brighter = np.clip(taken[30:].astype(int) + 3, 0, 255).astype(np.uint8)
    known = images(taken[:30], [*taken[30:], *brighter])
    read, held = [], []

    def one(row):
        image = known.images[row].copy()
        read.append(weakref.ref(image))
        held.append(sum(earlier() is not None for earlier in read))
        return image

    one_by_one = replace(known, images=ImagesOneByOne(np.arange(90), one))
    blind, whole = (check_shift(k, error_rate=0.05, seed=0) for k in (one_by_one, known))
    assert len(read) >= 90
    assert max(held) <= 2
    assert blind.check == whole.check
    assert (blind.scores, blind.clusters) == (whole.scores, whole.clusters)
    assert blind.check.n_searched == 90
    assert blind.clusters["n30"] == blind.clusters["n0"]


def test_too_few_members_are_told_with_all_that_were_searched(monkeypatch):
    monkeypatch.setattr("raymia.shift.check.NEVER_CUT_BELOW", 30)
    monkeypatch.setattr("raymia.shift.check.TIMES_LARGER", 1)
    chosen = some(austen(), 100)
    found = check_shift(texts(chosen[:10], chosen[10:]), error_rate=0.05, seed=0).check
    assert found.reason.endswith("there are 10 members and 90 non-members")
    assert (found.n_members, found.n_non_members) == (10, 90)


def test_copies_of_texts_are_found_and_proposed_as_groups():
    passages = some(austen(), 60)
    passages[7] = f"{passages[3]} indeed"
    passages[9] = f"so {passages[3]}"
    passages[20] = passages[50] + " so"
    clusters = copied_texts(passages)
    assert clusters == [[3, 7, 9], [20, 50]]
    found = check_of([clusters, []], [60, 60]).copies
    assert (found.members, found.non_members, found.groups) == (5, 0, 2)
    assert found.proposed == [["m3", "m7", "m9"], ["m20", "m50"]]
    line = overlap_lines(check_of([clusters, []], [60, 60]))[0]
    assert line.startswith("5 members nearly copy another member, in 2 clusters, as m3, m7 and m9")


def test_copies_of_images_are_found():
    pictures = photographs(0, 12, side=64)
    copied = np.concatenate([pictures, np.clip(pictures[:2].astype(int) + 3, 0, 255)])
    found = copied_images(copied.astype(np.uint8))
    assert [0, 12] in found
    assert [1, 13] in found


def test_texts_too_short_to_compare_are_no_copies():
    assert copied_texts(["a b", "a b", ""]) == []


@pytest.mark.long
def test_dataset_inference_counts_a_cluster_of_copies_once():
    """Eighty texts, each ten times, of attacks that guess."""
    draws, size = np.random.default_rng(2), 800
    ids = [f"r{n}" for n in range(size)]
    clusters = {name: f"copies of r{n // 10}" for n, name in enumerate(ids)}
    table = pa.table(
        {
            "record_id": ids,
            "group": pa.nulls(size, pa.string()),
            "is_member": np.arange(size) < size // 2,
        }
    )
    inputs = SimpleNamespace(
        records=SimpleNamespace(table=table), fitted_on_labels=frozenset(),
        spec=SimpleNamespace(metrics=MetricsSpec(), seed=0),
    )  # fmt: skip
    found = {True: 0, False: 0}
    for _ in range(30):
        scores = {
            name: np.repeat(draws.normal(size=80), 10) + 0.01 * draws.normal(size=size)
            for name in ("one", "two", "three")
        }
        for known in found:
            (test,) = infer_datasets(inputs, "t", scores, clusters if known else None)
            found[known] += test.p_value <= 0.05
    assert found[True] <= 6, "more has a chance below 1 % at an error of 5 %"
    assert found[False] >= 10, "as single records they are found in every third audit or more"


def _inferred(features, is_suspect, is_fitted):
    units = np.arange(len(features))
    columns = Features(list(features.T))
    return infer_dataset(columns, is_suspect, is_fitted, units, target="t", suspects="members")


def test_dataset_inference_on_a_target_without_scores_says_nothing():
    """Its weights are not finite: no record has a score, and none was measured."""
    is_suspect, is_fitted = np.arange(400) < 200, np.arange(400) % 2 == 0
    features = np.full((400, 3), np.nan)
    found = _inferred(features, is_suspect, is_fitted)
    assert (found.p_value, found.n_suspects, found.n_non_members) == (None, 0, 0)


def test_an_infinite_score_does_not_stop_dataset_inference():
    draws = np.random.default_rng(1)
    is_suspect, is_fitted = np.arange(400) < 200, np.arange(400) % 2 == 0
    features = draws.normal(size=(400, 3)) + 0.5 * is_suspect[:, None]
    features[5, 0], features[9, 1] = np.inf, -np.inf
    found = _inferred(features, is_suspect, is_fitted)
    assert found.p_value < 0.01
