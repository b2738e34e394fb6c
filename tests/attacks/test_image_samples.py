"""Attacks on nothing but samples equal their formulas, and compare what can be compared."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
from made_image_evidence import everything, pictures
from sklearn.metrics import roc_auc_score

from raymia.attacks import build
from raymia.attacks.images import distances as rooms
from raymia.attacks.images.distances import nearest, principal_components
from raymia.evidence.image import ImageEvidence

GIVEN = replace(everything(), target=None, reference=None, shadows=())
ATTACKS = ["gan_leaks", "monte_carlo", "over_representation", "logan"]


def scores(name, given=GIVEN, **parameters):
    return build(name, parameters, "here", "image").score(given)


def flat(image):
    return [int(x) for x in image.ravel()]


def to_all(image, others):
    """Distances to all others in gray levels, nearest first."""
    return sorted(math.dist(flat(image), flat(other)) for other in others)


@pytest.mark.parametrize("k", [1, 5])
def test_gan_leaks_is_its_formula(k):
    expected = [-sum(to_all(x, GIVEN.samples)[:k]) / k / 255 for x in GIVEN.images]
    np.testing.assert_allclose(scores("gan_leaks", k=k), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_over_representation_is_its_formula(k):
    expected = [
        math.log(to_all(x, GIVEN.population.images)[k - 1])
        - math.log(to_all(x, GIVEN.samples)[k - 1])
        for x in GIVEN.images
    ]
    np.testing.assert_allclose(scores("over_representation", k=k), expected, rtol=1e-12)


def components(samples, count):
    """Principal components by a singular value decomposition, up to signs."""
    points = np.array([flat(s) for s in samples], float)
    return points.mean(axis=0), np.linalg.svd(points - points.mean(axis=0))[2][:count]


def near(rich, radius, weigh, count):
    """Monte-Carlo integration with plain loops."""
    mean, axes = components(GIVEN.samples, count)
    project = [[(axes[a] * (flat(s) - mean)).sum() for a in range(len(axes))] for s in rich]
    samples = [[(axes[a] * (flat(s) - mean)).sum() for a in range(len(axes))]
               for s in GIVEN.samples]  # fmt: skip
    among = [[math.dist(a, b) for b in samples if b is not a] for a in samples]
    if radius == "median":
        eps = statistics.median(min(row) for row in among)
    else:
        eps = float(np.quantile([d for row in among for d in row], 0.001))
    found = []
    for x in project:
        inside = [d for d in (math.dist(x, s) for s in samples) if d <= eps]
        weights = [1.0 if weigh == "count" else -math.log(max(d / eps, 1e-6)) for d in inside]
        found.append(sum(weights) / len(samples))
    return found


@pytest.mark.parametrize("radius", ["median", "percentile"])
@pytest.mark.parametrize("weigh", ["count", "distance"])
@pytest.mark.parametrize("count", [2, 40])
def test_monte_carlo_is_its_formula(radius, weigh, count):
    records = np.concatenate([GIVEN.images, GIVEN.samples[:3]])
    given = replace(GIVEN, pixels=records)
    expected = near(records, radius, weigh, count)
    assert sum(x > 0 for x in expected) >= 3, "too little to compare"
    found = scores("monte_carlo", given, radius=radius, weigh=weigh, components=count)
    # A copy of a sample is at a distance of 0, or of rounding.
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.long
def test_logan_is_a_classifier_of_samples_against_the_population():
    """Samples are bright, the population is dark: it says so of any image, by a monotone score."""
    draws = np.random.default_rng(0)
    bright = draws.integers(128, 256, (200, 1, 6, 6)).astype(np.uint8)
    dark = draws.integers(0, 128, (100, 1, 6, 6)).astype(np.uint8)
    records = np.concatenate(
        [draws.integers(128, 256, (50, 1, 6, 6)), draws.integers(0, 128, (50, 1, 6, 6))]
    ).astype(np.uint8)
    given = ImageEvidence(records, None, population=ImageEvidence(dark, None), samples=bright)
    found = scores("logan", given)
    assert roc_auc_score(np.arange(100) < 50, found) == 1.0
    assert ((found > 0) == (np.arange(100) < 50)).all(), "sets of unequal size weigh the same"


@pytest.mark.long
def test_logan_learns_nothing_where_samples_are_as_the_population():
    """The AUC of 600 and 600 records has a standard error of 0.017."""
    given = ImageEvidence(
        pictures(0, 1_200, side=3),
        None,
        population=ImageEvidence(pictures(1, 200, side=3), None),
        samples=pictures(2, 200, side=3),
    )
    assert abs(roc_auc_score(np.arange(1_200) < 600, scores("logan", given)) - 0.5) < 0.05


@pytest.mark.parametrize("few", ["samples", "population"])
def test_logan_of_a_small_set_is_not_fitted(few):
    small = pictures(0, 19)
    given = (
        replace(GIVEN, samples=small)
        if few == "samples"
        else replace(GIVEN, population=ImageEvidence(small, None))
    )
    assert np.isnan(scores("logan", given)).all()


# --------------------------------------------------------------------------- copies and blocks


def test_copy_of_a_sample_is_nearer_than_anything_else_and_finite():
    samples = GIVEN.samples.copy()
    samples[7] = GIVEN.images[3]
    given = replace(GIVEN, samples=samples)
    assert scores("gan_leaks", given)[3] == 0.0
    for name, parameters in [
        ("gan_leaks", {}),
        ("over_representation", {"k": 1}),
        ("monte_carlo", {"weigh": "distance"}),
    ]:
        found = scores(name, given, **parameters)
        assert np.isfinite(found).all()
        assert found.argmax() == 3


def test_samples_that_are_copies_of_each_other_leave_a_radius():
    given = replace(GIVEN, samples=np.repeat(GIVEN.samples[:1], 30, axis=0))
    assert np.isfinite(scores("monte_carlo", given)).all()


def test_nearest_of_many_are_those_of_a_full_sort():
    images, others = pictures(0, 3), pictures(1, 2_500)
    expected = [to_all(image, others)[:900] for image in images]
    np.testing.assert_allclose(nearest(images, others, 900), expected, rtol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    images, others = pictures(0, 50), pictures(1, 70)
    whole = nearest(images, others, 4)
    monkeypatch.setattr(rooms, "ROWS", 7)
    monkeypatch.setattr(rooms, "COLUMNS", 3)
    np.testing.assert_array_equal(nearest(images, others, 4), whole)


def test_more_components_than_there_can_be_are_all_there_are():
    assert principal_components(pictures(0, 5), 40)(pictures(1, 3)).shape == (3, 5)
    assert principal_components(pictures(0, 50, side=3), 40)(pictures(1, 3, side=3)).shape == (3, 9)


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ATTACKS)
def test_samples_of_another_shape_are_refused_with_both_shapes(name):
    given = replace(GIVEN, samples=pictures(0, 60, side=8))
    with pytest.raises(ValueError, match=r"samples should be .*\[1, 6, 6\].*60 of \[1, 8, 8\]"):
        scores(name, given)


@pytest.mark.parametrize("name", ["over_representation", "logan"])
def test_population_of_another_shape_is_refused_with_both_shapes(name):
    other = ImageEvidence(pictures(0, 60, channels=3), None)
    with pytest.raises(ValueError, match=r"population should be .*60 of \[3, 6, 6\]"):
        scores(name, replace(GIVEN, population=other))


@pytest.mark.parametrize("name", ATTACKS)
def test_no_samples_at_all_are_refused(name):
    with pytest.raises(ValueError, match="but got 0 of"):
        scores(name, replace(GIVEN, samples=pictures(0, 0)))


@pytest.mark.parametrize("name", ["gan_leaks", "over_representation"])
def test_more_neighbors_than_there_are_samples_are_refused(name):
    with pytest.raises(ValueError, match="k should be at most 3"):
        scores(name, replace(GIVEN, samples=GIVEN.samples[:3]), k=4)
