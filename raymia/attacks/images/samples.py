"""Attacks that look at nothing but images which the target generated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import Scores, answered, register
from raymia.attacks.images.base import ImageAttack
from raymia.attacks.images.distances import (
    ROWS,
    check_same_shape,
    distances,
    nearest,
    principal_components,
)
from raymia.attacks.means import Means
from raymia.attacks.quantile import MIN_POPULATION
from raymia.evidence.image import Floats, ImageEvidence, Images
from raymia.metrics.learning import one_thread

MIN_SAMPLES = 2
"""Samples without which there is no distance among them."""

RADIUS_SAMPLES = 1_000
"""The radius of Monte-Carlo integration is found from the distances of so many samples."""

MIN_RADIUS = 1e-3
"""Floor of the radius in gray levels, for samples that are copies of each other."""

MIN_SHARE = 1e-6
"""Floor of a distance over the radius whose logarithm is taken."""

ROUNDING = 1e-9
"""What is at the radius up to so much of it is inside."""


@dataclass(frozen=True)
class OnSamples(ImageAttack):
    """Base of attacks on generated images alone, which every family can give."""

    asks = ()
    needs = frozenset({"generated_images"})


def samples_of(evidence: ImageEvidence) -> Images:
    """What the target generated, of the records' shape.

    Raises
    ------
    ValueError
        If there is none, or it has another shape.
    """
    samples = answered(evidence.samples)
    check_same_shape(evidence.images, samples, "samples")
    return samples


@register
@dataclass(frozen=True)
class GanLeaks(OnSamples):
    """Distance to the nearest of the samples (GAN-Leaks, full black-box; Chen et al., CCS 2020).

    Euclidean, over pixel values in [0, 1]. Every record has a score.

    Parameters
    ----------
    k : how many of the nearest samples to average over; published: 1.
    """

    k: int = 1

    name = "gan_leaks"
    title = "GAN-Leaks, black box"
    source = "Chen et al. 2020, arXiv 1909.03935"
    formula = "-min_samples ||x - sample||_2"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k should be at least 1, but got {self.k}")

    def unserved(self, means: Means) -> list[str]:
        return means.fewer("samples", self.k, "k")

    def score(self, evidence: ImageEvidence) -> Scores:
        near = nearest(evidence.images, samples_of(evidence), self.k)
        scores: Scores = -near.mean(axis=1) / 255
        return scores


@register
@dataclass(frozen=True)
class MonteCarlo(OnSamples):
    """Share of the samples near the record (Hilprecht et al., PETS 2019).

    Distances are taken between the first principal components of the samples. The radius is found
    from the distances among the samples (of the first 1,000 to all), not from the records' as
    published: so a record's score depends on no other record. Every record has a score.

    Parameters
    ----------
    radius : "median" for the median distance of a sample to its nearest other, or "percentile" for
        the distance that 0.1 % of the pairs of samples do not exceed.
    weigh : "count" for the share itself, or "distance" to count a sample by minus the logarithm of
        its distance over the radius, so that the nearest count most.
    components : how many principal components, at most.
    """

    radius: str = "median"
    weigh: str = "count"
    components: int = 40

    name = "monte_carlo"
    title = "Monte-Carlo integration"
    source = "Hilprecht et al. 2019, arXiv 1906.03006"
    formula = "share of samples with ||PCA(x) - PCA(sample)||_2 <= radius"

    def __post_init__(self) -> None:
        if self.radius not in ("median", "percentile"):
            raise ValueError(f"radius should be 'median' or 'percentile', but got {self.radius!r}")
        if self.weigh not in ("count", "distance"):
            raise ValueError(f"weigh should be 'count' or 'distance', but got {self.weigh!r}")
        if self.components < 1:
            raise ValueError(f"components should be at least 1, but got {self.components}")

    def unserved(self, means: Means) -> list[str]:
        return means.fewer("samples", MIN_SAMPLES)

    def score(self, evidence: ImageEvidence) -> Scores:
        samples = samples_of(evidence)
        if len(samples) < MIN_SAMPLES:
            raise ValueError(f"this attack needs at least {MIN_SAMPLES} samples")
        project = principal_components(samples, self.components)
        points = project(samples)
        radius = self._radius(points)
        records = project(evidence.images)
        parts = [records[i : i + ROWS] for i in range(0, len(records), ROWS)]
        return np.concatenate([self._weights(distances(p, points) / radius) for p in parts])

    def _radius(self, points: Floats) -> float:
        among = distances(points[:RADIUS_SAMPLES], points)
        rows = np.arange(len(among))
        among[rows, rows] = np.inf
        if self.radius == "median":
            found = np.median(among.min(axis=1))
        else:
            found = np.quantile(among[np.isfinite(among)], 0.001)
        return max(float(found), MIN_RADIUS)

    def _weights(self, shares: Floats) -> Scores:
        """Weight of the samples around each record, from distances over the radius."""
        near = shares <= 1 + ROUNDING
        if self.weigh == "count":
            weights: Scores = near.mean(axis=1)
        else:
            logs = np.log(np.clip(shares, MIN_SHARE, 1.0))
            weights = np.where(near, -logs, 0.0).mean(axis=1)
        return weights


@register
@dataclass(frozen=True)
class OverRepresentation(OnSamples):
    """How much denser the samples are around the record than images that are no members (Hu and
    Pang, CCS 2021).

    The ratio of two nearest-neighbor estimates of density in the space of pixels, of which the
    score is the logarithm over the number of dimensions, up to a constant. A distance is at least
    half a gray level. Every record has a score.

    Parameters
    ----------
    k : which nearest neighbor to take.
    """

    k: int = 5

    name = "over_representation"
    title = "Over-represented regions"
    source = "Hu and Pang 2021, CCS, 10.1145/3460120.3485338"
    formula = "log d_k(x, population) - log d_k(x, samples)"
    needs = OnSamples.needs | {"population"}

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k should be at least 1, but got {self.k}")

    def unserved(self, means: Means) -> list[str]:
        return [s for what in ("population", "samples") for s in means.fewer(what, self.k, "k")]

    def score(self, evidence: ImageEvidence) -> Scores:
        population = answered(evidence.population).images
        check_same_shape(evidence.images, population, "population")
        return self._log_distance(evidence.images, population) - self._log_distance(
            evidence.images, samples_of(evidence)
        )

    def _log_distance(self, images: Images, others: Images) -> Scores:
        logs: Scores = np.log(np.maximum(nearest(images, others, self.k)[:, -1], 0.5))
        return logs


@register
@dataclass(frozen=True)
class Logan(OnSamples):
    """What a classifier of samples against images that are no members says of the record (LOGAN,
    black-box with non-members; Hayes et al., PETS 2019).

    Where LOGAN trains a generator to have its discriminator, gradient-boosted trees are fitted on
    the first principal components of the two sets. The score is the log-odds of being a sample. No
    record is fitted on, and every one has a score; none has with fewer than 20 of either set.

    Parameters
    ----------
    components : how many principal components, at most.
    """

    components: int = 40

    name = "logan"
    title = "LOGAN, surrogate"
    source = "Hayes et al. 2019, arXiv 1705.07663"
    formula = "log-odds of a classifier of samples against non-members"
    needs = OnSamples.needs | {"population"}
    min_population = MIN_POPULATION

    def __post_init__(self) -> None:
        if self.components < 1:
            raise ValueError(f"components should be at least 1, but got {self.components}")

    def score(self, evidence: ImageEvidence) -> Scores:
        from sklearn.ensemble import HistGradientBoostingClassifier

        samples, population = samples_of(evidence), answered(evidence.population).images
        check_same_shape(evidence.images, population, "population")
        if min(len(samples), len(population)) < MIN_POPULATION:
            return np.full(len(evidence.images), np.nan)
        both = np.concatenate([samples, population])
        is_sample = np.arange(len(both)) < len(samples)
        project = principal_components(both, self.components)
        trees = HistGradientBoostingClassifier(
            early_stopping=False, class_weight="balanced", random_state=0
        )
        with one_thread():
            trees.fit(project(both), is_sample)
            odds: Scores = trees.decision_function(project(evidence.images))
        return odds
