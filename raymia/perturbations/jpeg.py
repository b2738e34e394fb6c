"""Compression by JPEG (ITU-T T.81) of a batch of images, on their device.

What is written and read back is lossless after quantization, so only the lossy steps are taken:
conversion of color, halving of chroma, cosine transform, and quantization by the tables of Annex K
scaled to a quality as libjpeg does.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""Table K.1."""

_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
"""Table K.2."""

_SNAP = 2.0**20


def compress(images: torch.Tensor, quality: int) -> torch.Tensor:
    """Compress images and read them back.

    Parameters
    ----------
    images : float32 [B, C, H, W] in [0, 1] with one or three channels, taken to 8 bits.
    quality : 1 to 100, as libjpeg and Pillow count it. Chroma has half the resolution.

    Returns
    -------
    float32 of the same shape, in steps of 1/255.
    """
    levels = (images * 255).round().to(torch.float64)
    if images.shape[1] == 1:
        read = _plane(levels, _table(_LUMA, quality, levels))
        return (read / 255).to(torch.float32)
    luma_table, chroma_table = (_table(t, quality, levels) for t in (_LUMA, _CHROMA))
    luma, *chroma = _to_ycbcr(levels)
    luma = _plane(luma, luma_table)
    chroma = [_double(_plane(_halve(c), chroma_table), c) for c in chroma]
    return (_to_rgb(luma, *chroma) / 255).to(torch.float32)


def _table(standard: tuple[int, ...], quality: int, like: torch.Tensor) -> torch.Tensor:
    scale = 5_000 // quality if quality < 50 else 200 - 2 * quality
    scaled = [min(max((step * scale + 50) // 100, 1), 255) for step in standard]
    return torch.tensor(scaled, dtype=like.dtype, device=like.device).reshape(8, 8)


def _round(values: torch.Tensor, half: float | torch.Tensor = 0.5) -> torch.Tensor:
    """Round to integers, halves up, also where the last bits of a sum are off.

    The order of a sum may depend on the size of the batch, and blocks of constant color are exact
    halves often; without this, one bit would become a whole step of quantization.

    Parameters
    ----------
    half : what is added before all is cut off; libjpeg alternates it over columns here and there.
    """
    return ((values * _SNAP).round() / _SNAP + half).floor()


def _plane(levels: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantize one channel [B, 1, H, W] of integers 0 to 255 block by block."""
    height, width = levels.shape[-2:]
    padded = _extend(levels, 8)
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.reshape(-1, rows, 8, columns, 8).transpose(2, 3) - 128
    cosine = _cosine_transform(levels)
    coefficients = cosine @ blocks @ cosine.T / table
    steps = coefficients.sign() * _round(coefficients.abs())
    read = cosine.T @ (steps * table) @ cosine
    plane = read.transpose(2, 3).reshape(-1, 1, rows * 8, columns * 8)
    return _round(plane + 128).clamp(0, 255)[..., :height, :width]


def _cosine_transform(like: torch.Tensor) -> torch.Tensor:
    """The orthonormal discrete cosine transform of eight numbers, T.81 A.3.3."""
    u, x = (torch.arange(8, dtype=like.dtype, device=like.device) for _ in range(2))
    matrix = 0.5 * torch.cos((2 * x[None] + 1) * u[:, None] * math.pi / 16)
    matrix[0] = math.sqrt(1 / 8)
    return matrix


def _extend(planes: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column until both sides are multiples."""
    height, width = planes.shape[-2:]
    missing = (0, -width % multiple, 0, -height % multiple)
    return functional.pad(planes, missing, mode="replicate")


def _halve(chroma: torch.Tensor) -> torch.Tensor:
    """Mean of every two by two; of halves, every other column is rounded up."""
    means = functional.avg_pool2d(_extend(chroma, 2), 2)
    return _round(means, _alternating(1 / 4, 1 / 2, means))


def _double(chroma: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Interpolate linearly between the centers of the pixels of half the resolution."""
    full = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    height, width = like.shape[-2:]
    return _round(full, _alternating(8 / 16, 7 / 16, full))[..., :height, :width]


def _alternating(even: float, odd: float, like: torch.Tensor) -> torch.Tensor:
    columns = torch.arange(like.shape[-1], device=like.device) % 2
    return torch.where(columns == 0, even, odd).to(like.dtype)


def _to_ycbcr(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Full-range YCbCr of BT.601, as the JFIF standard has it."""
    r, g, b = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return _round(y), _round((b - y) / 1.772 + 128), _round((r - y) / 1.402 + 128)


def _to_rgb(y: torch.Tensor, cb: torch.Tensor, cr: torch.Tensor) -> torch.Tensor:
    r = y + 1.402 * (cr - 128)
    b = y + 1.772 * (cb - 128)
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return _round(torch.cat([r, g, b], dim=1)).clamp(0, 255)
