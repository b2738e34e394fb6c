"""What blind guessers see of images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raymia.records.pixels import as_picture
from raymia.shift.cross_fitting import Rows

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

QUALITIES = (50, 75, 95)
BANDS = 8
THUMBNAIL = 8
JPEG_BLOCK = 8
SCALED, FREQUENCIES = 32, 8
"""Sides of the gray image that near-duplicates are found by, and of its lowest frequencies."""


@dataclass(frozen=True)
class ImagesOneByOne:
    """Images of which one at a time is read, whenever they are gone through, and none is held.

    Attributes
    ----------
    rows : of the images.
    read : gives the image of a row, uint8 [channels, height, width].

    Examples
    --------
    >>> grays = ImagesOneByOne(np.arange(9), lambda row: np.full((1, 2, 2), row, np.uint8))
    >>> some = grays[np.array([3, 5])]
    >>> len(some), [int(image.max()) for image in some]
    (2, [3, 5])
    """

    rows: Rows
    read: Callable[[int], Images]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Images]:
        return map(self.read, self.rows.tolist())

    def __getitem__(self, places: Rows) -> ImagesOneByOne:
        return ImagesOneByOne(self.rows[places], self.read)


AnyImages = Images | ImagesOneByOne


class ImageFeatures:
    """A few numbers per image, standardized on the records that are fitted on, under a Gaussian
    kernel of one over their number."""

    def __init__(self, numbers: Floats) -> None:
        self.numbers = numbers

    def similarities(self, fitted: Rows, judged: Rows) -> tuple[Any, Any]:
        from sklearn.metrics.pairwise import rbf_kernel
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(self.numbers[fitted])
        known, new = (scaler.transform(self.numbers[rows]) for rows in (fitted, judged))
        return rbf_kernel(known), rbf_kernel(new, known)


def statistics(images: Iterable[Images]) -> Floats:
    """Color, frequency and compression of each image, [images, numbers].

    Parameters
    ----------
    images : each uint8 [channels, height, width].
    """
    return np.array([list(_statistics(image)) for image in images])


def _statistics(image: Images) -> Iterator[float]:
    levels = image.astype(np.float64)
    for channel in levels:
        yield from (channel.mean(), channel.std(), *np.percentile(channel, (5, 50, 95)))
    spread = levels.max(axis=0) - levels.min(axis=0)
    yield from (spread.mean(), spread.std())
    yield from ((image == 0).mean(), (image == 255).mean(), np.log(len(np.unique(image))))
    gray = levels.mean(axis=0)
    yield from _bands(gray)
    down, right = (np.abs(np.diff(gray, axis=axis)) for axis in (0, 1))
    yield from (down.mean() if down.size else 0.0, right.mean() if right.size else 0.0)
    yield _blocks(down) + _blocks(right.T)
    for size in (png_size(image), *(_size(image, "JPEG", quality=q) for q in QUALITIES)):
        yield np.log(size / gray.size)


def _bands(gray: Floats) -> Iterator[float]:
    """Logarithm of the energy in rings of spatial frequency, over the image's size."""
    energy = np.abs(np.fft.fft2(gray - gray.mean())) ** 2 / gray.size**2
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in gray.shape), indexing="ij"))
    ring = np.minimum((radius * 2 * BANDS).astype(int), BANDS - 1)
    for band in range(BANDS):
        yield float(np.log(energy[ring == band].sum() + 1e-3))


def _blocks(steps: Floats) -> float:
    """How much larger the steps between the rows of two JPEG blocks are than within one."""
    between = np.arange(len(steps)) % JPEG_BLOCK == JPEG_BLOCK - 1
    if not between.any():
        return 0.0
    return float(np.log((steps[between].mean() + 1) / (steps[~between].mean() + 1)))


def png_size(image: Images) -> int:
    """Bytes of an image as a PNG."""
    return _size(image, "PNG", compress_level=1)


def _size(image: Images, kind: str, **options: Any) -> int:
    file = io.BytesIO()
    as_picture(image).save(file, kind, **options)
    return file.tell()


def thumbnails(images: Iterable[Images]) -> Floats:
    """The mean color of eight by eight fields, [images, numbers]; smaller images as they are."""
    return np.array([_thumbnail(image) for image in images])


def _thumbnail(image: Images) -> Floats:
    from PIL import Image

    width, height = min(THUMBNAIL, image.shape[2]), min(THUMBNAIL, image.shape[1])
    picture = as_picture(image).resize((width, height), Image.Resampling.BOX)
    return np.asarray(picture, np.float64).ravel()


def small_gray(images: Iterable[Images]) -> Floats:
    """Each image in gray, scaled to 32 by 32, [images, 32, 32]."""
    from PIL import Image

    size = (SCALED, SCALED)
    pictures = (as_picture(image).convert("L") for image in images)
    scaled = [np.asarray(p.resize(size, Image.Resampling.BILINEAR), np.float64) for p in pictures]
    return np.array(scaled).reshape(-1, SCALED, SCALED)


def perceptual_hashes(gray: Floats) -> npt.NDArray[np.bool_]:
    """Signs of the lowest frequencies of images from :func:`small_gray`, [images, 63].

    Of the cosine transform, the 8 by 8 lowest coefficients but the mean are compared with their
    median (pHash; Zauner 2010).
    """
    from scipy.fft import dctn

    low = dctn(gray, axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES].reshape(len(gray), -1)[:, 1:]
    above: npt.NDArray[np.bool_] = low > np.median(low, axis=1, keepdims=True)
    return above
