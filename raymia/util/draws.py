"""Counter-based randomness: a draw is a function of what it is for, and of nothing else.

A key is hashed from (seed, record, neighbor, attempt, ...). Numbers under a key are indexed by
counters (step, position), so neither time, worker, batch nor order can change a draw
(docs/architecture.md, promise 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

# Weyl increment and finalizer constants of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), as signed
# 64-bit integers because torch has no unsigned multiplication.
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def stream_key(*parts: float | str) -> int:
    """Hash what a stream of draws is for into a signed 64-bit key."""
    joined = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    content = hashlib.blake2b(joined.encode(), digest_size=8).digest()
    return int.from_bytes(content, "little", signed=True)


def generator(*parts: int | str) -> np.random.Generator:
    """Return a numpy generator (Philox, itself counter-based) that is a function of ``parts``."""
    return np.random.Generator(np.random.Philox(key=stream_key(*parts) % 2**64))


def dealt(
    items: Sequence[Item], sizes: Mapping[str, int], *parts: int | str
) -> dict[str, list[Item]]:
    """Deal items out at random, into named lists of given sizes.

    Parameters
    ----------
    parts : what the draw is for.

    Examples
    --------
    >>> sorted(sum(dealt("abc", {"members": 1, "others": 2}, 0, "example").values(), []))
    ['a', 'b', 'c']
    """
    places = iter(generator(*parts).permutation(len(items)).tolist())
    return {name: [items[i] for i in islice(places, size)] for name, size in sizes.items()}


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical right shift of int64 (torch's own shift is arithmetic)."""
    shifted: torch.Tensor = x >> bits
    return shifted.bitwise_and_(2 ** (64 - bits) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finalizer, in place: noise of images is large, and memory is what takes time."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift(x, 31))


def uniforms(keys: torch.Tensor, step: int, count: int) -> torch.Tensor:
    """Draw ``count`` uniforms in the open interval (0, 1) for each key at one step.

    Parameters
    ----------
    keys : int64 tensor of shape [batch], from :func:`stream_key`.
    step : counter of the draw within the stream.
    count : how many numbers per key.

    Returns
    -------
    float64 tensor of shape [batch, count], on the device of ``keys``; the same bits everywhere.
    """
    import torch

    positions = torch.arange(1, count + 1, dtype=torch.int64, device=keys.device) * _WEYL
    streams = _mix(keys ^ _mix(torch.full_like(keys, step + 1) * _WEYL))
    bits = _shift(_mix(streams[:, None] + positions[None, :]), 12)
    return bits.to(torch.float64).add_(0.5).mul_(2.0**-52)


def gumbels(keys: torch.Tensor, step: int, count: int) -> torch.Tensor:
    """Draw standard Gumbel noise [batch, count]; argmax(logits + noise) samples the softmax."""
    return -(-uniforms(keys, step, count).log()).log()


def normals(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Draw ``count`` standard normal numbers for each key (Box and Muller, 1958).

    Returns
    -------
    float32 tensor of shape [batch, count]; equal on every device up to the rounding of its
    logarithm and cosine.
    """
    import torch

    half = (count + 1) // 2
    numbers = uniforms(keys, 0, 2 * half)
    radius = numbers[:, :half].log().mul_(-2).sqrt_()
    angle = numbers[:, half:].mul_(2 * torch.pi)
    pairs = torch.empty(numbers.shape, dtype=torch.float32, device=keys.device)
    pairs[:, :half] = angle.cos().mul_(radius)
    pairs[:, half:] = angle.sin_().mul_(radius)
    return pairs[:, :count]
