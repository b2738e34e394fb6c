"""Distances between images, and the space that some are taken in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from raymia.evidence.image import Floats, Images

ROWS, COLUMNS = 256, 2_048
"""Distances that are in memory at once."""


def pixels(images: Images) -> Floats:
    """Images as rows of pixel values in 0 to 255, float64 [images, pixels]."""
    return images.reshape(len(images), -1).astype(np.float64)


def check_same_shape(images: Images, others: Images, what: str) -> None:
    """Refuse images that cannot be compared pixel by pixel.

    Raises
    ------
    ValueError
        If there are none, or they have another shape than the records.
    """
    if len(others) == 0 or others.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"the {what} should be images of the records' channels, height and width, "
            f"{list(images.shape[1:])}, but got {len(others)} of {list(others.shape[1:])}"
        )


def distances(points: Floats, others: Floats) -> Floats:
    """Euclidean distances, [points, others]; exact for whole numbers, whose copies are at 0."""
    squares = (points**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * points @ others.T
    found: Floats = np.sqrt(np.maximum(squares, 0.0))
    return found


def nearest(images: Images, others: Images, k: int) -> Floats:
    """Distances to the k nearest of other images, nearest first, [images, k], in gray levels.

    Raises
    ------
    ValueError
        If there are fewer than k others.
    """
    if len(others) < k:
        raise ValueError(f"k should be at most {len(others)}, which there are, but got {k}")
    found = np.full((len(images), k), np.inf)
    for left in range(0, len(others), COLUMNS):
        block = pixels(others[left : left + COLUMNS])
        for top in range(0, len(images), ROWS):
            rows = slice(top, top + ROWS)
            both = np.hstack([found[rows], distances(pixels(images[rows]), block)])
            found[rows] = np.sort(np.partition(both, k - 1, axis=1)[:, :k], axis=1)
    return found


def principal_components(images: Images, components: int) -> Callable[[Images], Floats]:
    """What takes images to the first principal components of these, [images, components].

    There are no more components than images or pixels. The same images give the same components.
    """
    from sklearn.decomposition import PCA

    points = pixels(images)
    with np.errstate(invalid="ignore"):  # shares of no variance at all, which nobody reads
        fitted = PCA(min(components, *points.shape), random_state=0).fit(points)

    def project(others: Images) -> Floats:
        projected: Floats = fitted.transform(pixels(others))
        return projected

    return project
