"""Neighbors of an image: one perturbation at growing strengths, made in batches beside the model.

PFAMI (Fu et al., 2023), whose released code crops by ten shares and was tried with seven other
perturbations. Everything here is a function of the image, the strength, and, where chance has a
part, of the image's key; batch mates change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from raymia.perturbations.jpeg import compress
from raymia.util.draws import uniforms
from raymia.util.errors import InputError
from raymia.util.optional import require

DEFAULT_STRENGTHS: dict[str, tuple[float, ...]] = {
    "crop": (0.95, 0.9222, 0.8944, 0.8667, 0.8389, 0.8111, 0.7833, 0.7556, 0.7278, 0.7),
    "brightness": (0.9444, 1.1556, 0.7333, 1.3667, 0.5222, 1.5778, 0.3111, 1.7889, 0.1, 2.0),
    "contrast": (0.9444, 1.1556, 0.7333, 1.3667, 0.5222, 1.5778, 0.3111, 1.7889, 0.1, 2.0),
    "saturation": (0.9444, 1.1556, 0.7333, 1.3667, 0.5222, 1.5778, 0.3111, 1.7889, 0.1, 2.0),
    "hue": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
    "rotation": (9, 18, 27, 36, 45, 54, 63, 72, 81, 90),
    "perspective": (0.06, 0.12, 0.18, 0.24, 0.3, 0.36, 0.42, 0.48, 0.54, 0.6),
    "downsampling": (0.5, 0.4514, 0.4028, 0.3542, 0.3056, 0.2569, 0.2083, 0.1597, 0.1111, 0.0625),
    "jpeg": (95, 85, 75, 65, 55, 45, 35, 25, 15, 5),
    "blur": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75),
}
"""Ten strengths of each perturbation, in rising order of effect.

Those of the released code run over the ranges that it was tried with, without the strengths that
change nothing: factors are ordered by their distance from 1, and hues run over one direction, since
half a turn either way is the same. Distortions end at 0.6 rather than 1, see :func:`perturb`.
"""

COLORED = frozenset({"saturation", "hue"})
"""Perturbations that change nothing in a grey image."""


@dataclass(frozen=True)
class _Range:
    """Which strengths a perturbation takes: ``low`` to ``high``, both included, and no identity."""

    what: str
    low: float
    high: float
    identity: float | None = None
    is_whole: bool = False


_SMALLEST = 1e-3
_RANGES = {
    "crop": _Range("the share of the side that is kept", _SMALLEST, 1, identity=1),
    "brightness": _Range("the factor of the brightness", 0, 100, identity=1),
    "contrast": _Range("the factor of the contrast", 0, 100, identity=1),
    "saturation": _Range("the factor of the saturation", 0, 100, identity=1),
    "hue": _Range("the turn of the hue, as a share of the circle", -0.5, 0.5, identity=0),
    "rotation": _Range("the angle in degrees", -180, 180, identity=0),
    "perspective": _Range("how far corners move, as a share of half the side", 0, 0.65, identity=0),
    "downsampling": _Range("the share of the side's resolution", _SMALLEST, 1, identity=1),
    "jpeg": _Range("the quality", 1, 100, is_whole=True),
    "blur": _Range("the standard deviation in pixels", _SMALLEST, 100),
}


def check_perturbation(kind: str, strengths: Sequence[float], channels: int, where: str) -> None:
    """Refuse strengths that a perturbation does not take, and perturbations an image cannot have.

    Parameters
    ----------
    kind : one of :data:`DEFAULT_STRENGTHS`.
    channels : of the images.
    where : the key of the audit file that the strengths stand under.

    Raises
    ------
    InputError
        Naming every strength that is wrong.
    """
    problems = []
    if kind in COLORED and channels != 3:
        problems.append(
            f"{where}: {kind} needs images of three channels, and these have {channels}; "
            "choose another perturbation, such as crop"
        )
    if kind == "jpeg" and channels not in (1, 3):
        problems.append(
            f"{where}: jpeg needs images of one or three channels, and these have {channels}; "
            "choose another perturbation, such as crop"
        )
    takes = _RANGES[kind]
    for strength in strengths:
        if not takes.low <= strength <= takes.high:  # also where it is not a number
            problems.append(
                f"{where}: the strength of {kind} is {takes.what}, from {takes.low:g} to "
                f"{takes.high:g}, but got {strength:g}"
            )
        elif strength == takes.identity:
            problems.append(
                f"{where}: {kind} with strength {strength:g} is the image itself, and what is "
                "measured is the difference to it; leave this strength out"
            )
        elif takes.is_whole and strength != int(strength):
            problems.append(
                f"{where}: the strength of {kind} is {takes.what}, a whole number, but got "
                f"{strength:g}"
            )
    if problems:
        raise InputError(problems)


def perturb(images: torch.Tensor, kind: str, strength: float, keys: torch.Tensor) -> torch.Tensor:
    """Make one neighbor of each image.

    ``crop`` keeps the center and scales it back, ``downsampling`` scales down and back; neither is
    bound to whole pixels, so that small images have as many neighbors as strengths. ``brightness``
    scales the image; ``contrast`` scales its difference from its mean, and ``saturation`` that from
    its luma. ``hue`` turns the hue of HSV. ``rotation`` turns counterclockwise around the center;
    ``perspective`` moves each corner inward, by up to ``strength`` of half the side, and where
    both show what lies outside of the image, it is black. Corners that move further than 2/3 may
    no longer span a quadrilateral, so strengths end before. ``jpeg`` and ``blur`` (a Gaussian, the
    last row and column repeated) are what they are called.

    Parameters
    ----------
    images : float32 [B, C, H, W] in [0, 1].
    strength : as :func:`check_perturbation` takes it.
    keys : int64 [B], from :func:`raymia.util.draws.stream_key`; what chance decides is a function
        of them, and of the strength only in size.

    Returns
    -------
    float32 of the same shape, range and device.
    """
    return _made(images, kind, strength, keys).clamp(0, 1)


def _made(images: torch.Tensor, kind: str, strength: float, keys: torch.Tensor) -> torch.Tensor:
    require("kornia", "neighbors of images")
    from kornia import enhance, filters

    made: torch.Tensor
    match kind:
        case "crop":
            made = _center_crop(images, strength)
        case "brightness":
            made = images * strength
        case "contrast":
            made = enhance.adjust_contrast_with_mean_subtraction(images, float(strength))
        case "saturation":
            made = enhance.adjust_saturation_with_gray_subtraction(images, float(strength))
        case "hue":
            made = enhance.adjust_hue(images, 2 * math.pi * strength)
        case "rotation":
            made = _rotate(images, strength)
        case "perspective":
            made = _distort(images, strength, keys)
        case "downsampling":
            made = _lower_resolution(images, strength)
        case "jpeg":
            made = compress(images, int(strength))
        case "blur":
            size = 2 * math.ceil(4 * strength) + 1
            sigma = (float(strength), float(strength))
            made = filters.gaussian_blur2d(images, size, sigma, border_type="replicate")
        case _:
            raise ValueError(f"no perturbation {kind!r}; there are: {', '.join(DEFAULT_STRENGTHS)}")
    return made


def _center_crop(images: torch.Tensor, share: float) -> torch.Tensor:
    rows, columns = (
        _taps(_spaced(side, share) + (side - 1) / 2, side, 1.0) for side in images.shape[-2:]
    )
    return _resample(images, rows, columns)


def _lower_resolution(images: torch.Tensor, share: float) -> torch.Tensor:
    """Average over cells of ``1 / share`` pixels, centered, and interpolate between them.

    Where the side in cells is whole this is what Pillow's bilinear filter does twice.
    """
    rows, columns = (_down_and_up(side, share) for side in images.shape[-2:])
    return _resample(images, rows, columns)


def _down_and_up(side: int, share: float) -> torch.Tensor:
    cells = max(1, math.ceil(side * share - 1e-9))
    centers = _spaced(cells, 1 / share)
    down = _taps(centers + (side - 1) / 2, side, 1 / share)
    up = _taps(_spaced(side, share) + (cells - 1) / 2, cells, 1.0)
    return up @ down


def _spaced(count: int, step: float) -> torch.Tensor:
    """Positions around 0, float64 [count]."""
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * step


def _taps(centers: torch.Tensor, side: int, support: float) -> torch.Tensor:
    """Weights of a triangle filter.

    Parameters
    ----------
    centers : float64 [n], in pixels of the input, whose first pixel is at 0.
    side : pixels of the input.
    support : half the filter's width in pixels.

    Returns
    -------
    float64 [n, side]; each row sums to one, also where the filter hangs over the edge.
    """
    pixels = torch.arange(side, dtype=torch.float64)
    weights = (1 - (centers[:, None] - pixels[None]).abs() / support).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _resample(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    rows, columns = rows.to(images), columns.to(images)
    return rows @ images @ columns.T


def _rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    from kornia.geometry.transform import rotate

    angles = torch.full((len(images),), float(degrees), dtype=images.dtype, device=images.device)
    rotated: torch.Tensor = rotate(images, angles)
    return rotated


def _distort(images: torch.Tensor, distortion: float, keys: torch.Tensor) -> torch.Tensor:
    from kornia.geometry.transform import get_perspective_transform, warp_perspective

    height, width = images.shape[-2:]
    right, bottom = width - 1, height - 1
    corners = images.new_tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]])
    inward = images.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    half = images.new_tensor([right / 2, bottom / 2])
    share = distortion * uniforms(keys, 0, 8).reshape(-1, 4, 2).to(images)
    moved = corners + share * inward * half
    matrices = get_perspective_transform(corners.expand_as(moved), moved)
    warped: torch.Tensor = warp_perspective(images, matrices, (height, width))
    return warped
