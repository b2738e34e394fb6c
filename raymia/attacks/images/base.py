"""What attacks on images share."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from hashlib import sha256
from typing import ClassVar, TypeVar

import numpy as np

from raymia.attacks.base import Attack, Scores, answered
from raymia.attacks.means import Means
from raymia.evidence.image import Floats, Grid, ImageEvidence, ImageModelEvidence, Images

MIN_ERROR = 1e-30
"""Floor of an error whose logarithm is taken, so that a perfect answer gives no infinity."""

REMEMBERED = 2**14
"""Images of which is remembered what was measured."""

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class ImageAttack(Attack):
    """Base of attacks on images: ``score`` takes :class:`raymia.evidence.image.ImageEvidence`."""

    records: ClassVar[tuple[str, ...]] = ("image",)
    asks: ClassVar[tuple[str, ...]] = ("terms",)


@dataclass(frozen=True)
class Filtered(ImageAttack):
    """Base of attacks on errors of which a denoiser gives a low-pass filtered kind as well.

    Parameters
    ----------
    low_pass : take the error after the low-pass of FreMIA on both prediction and what should have
        been predicted; denoisers only.
    """

    low_pass: bool = False

    @property
    def all_needs(self) -> frozenset[str]:
        return self.needs | {"denoiser"} if self.low_pass else self.needs


@dataclass(frozen=True)
class Timed(Filtered):
    """Base of attacks on errors over timesteps.

    Parameters
    ----------
    low_pass : as in :class:`Filtered`.
    timestep : of the noise schedule, or a share of it, one of those that the audit asks about; None
        takes the mean over all. Denoisers only.
    """

    timestep: float | None = None

    def __post_init__(self) -> None:
        if self.timestep is not None and not _is_place(self.timestep):
            raise ValueError(
                "timestep should be a whole number, at least 0, or a share between 0 and 1, or be "
                f"left out for all, but got {self.timestep!r}"
            )

    @property
    def all_needs(self) -> frozenset[str]:
        return super().all_needs if self.timestep is None else self.needs | {"denoiser"}

    def unserved(self, means: Means) -> list[str]:
        return super().unserved(means) + means.unasked(self.asks[0], "timestep", self.timestep)


@dataclass(frozen=True)
class OnLoss(Timed):
    """Base of attacks on what the model was trained to make small.

    Parameters
    ----------
    low_pass, timestep : as in :class:`Timed`.
    """

    def loss(self, model: ImageModelEvidence) -> Scores:
        """Mean over timesteps and draws of the denoising error, of the negative ELBO, or of the
        negative log-likelihood, [records]."""
        return mean_error(model.terms, "loss", self.timestep, self.low_pass)


def _is_place(timestep: object) -> bool:
    if isinstance(timestep, float):
        return 0 < timestep < 1
    return isinstance(timestep, int) and not isinstance(timestep, bool) and timestep >= 0


def errors(answers: Grid, column: str, low_pass: bool = False) -> Floats:
    """A column of a model's answers, low-pass filtered where that is asked for.

    Parameters
    ----------
    column : of the answers; "loss" for what the model was trained to make small.

    Raises
    ------
    ValueError
        If the model gave no filtered errors.
    """
    if column == "loss":
        column = column if column in answers.values else "l2"
    name = f"low_{column}" if low_pass else column
    if name not in answers.values:
        given = ", ".join(answers.values)
        advice = "; leave out low_pass, which is for denoisers" if low_pass else ""
        raise ValueError(f"this attack needs {name}, but the model gave {given}{advice}")
    return answers.values[name]


def mean_error(
    answers: Grid, column: str, timestep: float | None = None, low_pass: bool = False
) -> Scores:
    """Mean over draws, at one timestep or over all; NaN where any is missing.

    Returns
    -------
    float64, the answers' shape without its last two axes.

    Raises
    ------
    ValueError
        If nothing was asked at the timestep, or the model gave no such column.
    """
    values = errors(answers, column, low_pass)
    if timestep is not None:
        if timestep not in answers.timesteps:
            asked_about = ", ".join(map(str, answers.timesteps))
            raise ValueError(
                f"timestep should be one that the model was asked about ({asked_about}), "
                f"but got {timestep}"
            )
        values = values[..., [answers.timesteps.index(timestep)], :]
    means: Scores = values.mean(axis=(-2, -1))
    return means


def log_error(error: Scores) -> Scores:
    """Logarithm of an error, which is taken for at least 1e-30."""
    logs: Scores = np.log(np.maximum(error, MIN_ERROR))
    return logs


def score_of_error(
    error: Callable[[ImageModelEvidence], Scores], evidence: ImageEvidence
) -> Scores:
    """Score of an error that members have smaller: alone its negative, beside a reference the
    logarithm of the reference's error less that of the target's."""
    target = error(answered(evidence.target))
    if evidence.reference is None:
        return -target
    return log_error(error(evidence.reference)) - log_error(target)


def score_per_byte(
    error: Callable[[ImageModelEvidence], Scores], evidence: ImageEvidence
) -> Scores:
    """Score of an error that members have smaller, over the size of the image's channels as gray
    PNG files: alone its negative, beside a reference the reference's error less the target's, since
    the size would cancel in a ratio."""
    excess = error(answered(evidence.target))
    if evidence.reference is not None:
        excess = excess - error(evidence.reference)
    return -excess / np.array([png_bytes(image) for image in evidence.images], np.float64)


def remembered(measure: Callable[[Images], Measured]) -> Callable[[Images], Measured]:
    """Remember what was measured of some thousand images: each reference of an attack, and each
    shard of the records, looks at the same population."""
    known: dict[tuple[bytes, tuple[int, ...]], Measured] = {}

    @wraps(measure)
    def look_up(image: Images) -> Measured:
        key = sha256(np.ascontiguousarray(image).data).digest(), image.shape
        found = known.get(key)
        if found is None:
            if len(known) >= REMEMBERED:
                known.clear()
            found = known[key] = measure(image)
        return found

    return look_up


@remembered
def png_bytes(image: Images) -> int:
    """The size of an image's channels as gray PNG files, uint8 [channels, height, width]."""
    from PIL import Image

    size = 0
    for channel in image:
        file = io.BytesIO()
        Image.fromarray(channel).save(file, "png")
        size += file.tell()
    return size
