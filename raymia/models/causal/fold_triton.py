"""The fold as one Triton kernel per tile: each logit is read once. Imported on CUDA alone."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from raymia.models.causal.fold import FLOOR, After, Columns, Sums

Tensor = torch.Tensor
BLOCK = 2_048
"""Columns that one program reads at once."""
KINDS = {"nothing": 0, "multiply": 1, "divide": 2, "cap": 3}


class TritonFold:
    """The fold of :mod:`raymia.models.causal.fold` in registers, one program per token.

    Parameters
    ----------
    labels : int64 [tokens].
    """

    copies = 1
    """Tiles that it holds at once."""

    def __init__(self, labels: Tensor, after: After, *, moments: bool) -> None:
        self.labels, self.after, self.moments = labels, after, moments
        self.numbers = torch.empty((5, len(labels)), dtype=torch.float32, device=labels.device)
        self.where = torch.empty_like(labels)
        self.is_first = True

    def add(self, products: Tensor, bias: Tensor | None, start: int) -> None:
        rows, columns = products.shape
        _kernel[(rows,)](
            products, products if bias is None else bias, self.labels, self.numbers, self.where,
            products.stride(0), rows, columns, start, self.after.number,
            kind=KINDS[self.after.kind], has_bias=bias is not None, is_first=self.is_first,
            moments=self.moments, lowest=FLOOR,
            block=min(BLOCK, triton.next_power_of_2(columns)),
        )  # fmt: skip
        self.is_first = False

    def columns(self) -> Columns:
        top, mass, mean, spread, label = self.numbers
        moments = (mean, spread) if self.moments else (None, None)
        return Sums(top, self.where, mass, *moments).columns(label, self.labels)


def _fold(
    products: Any, biases: Any, labels: Any, numbers: Any, where: Any,
    stride: Any, rows: Any, columns: Any, start: Any, number: Any,
    kind: tl.constexpr, has_bias: tl.constexpr, is_first: tl.constexpr,
    moments: tl.constexpr, lowest: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0)
    wanted = tl.load(labels + row) - start
    state = numbers + row
    if is_first:
        top = tl.full((), lowest, tl.float32)
        mass = tl.full((), 0.0, tl.float32)
        mean = tl.full((), 0.0, tl.float32)
        spread = tl.full((), 0.0, tl.float32)
        label = tl.full((), float("nan"), tl.float32)
        best = tl.full((), 0, tl.int64)
    else:
        top = tl.load(state)
        mass = tl.load(state + rows)
        mean = tl.load(state + 2 * rows)
        spread = tl.load(state + 3 * rows)
        label = tl.load(state + 4 * rows)
        best = tl.load(where + row)
    for first in range(0, columns, block):
        at = first + tl.arange(0, block)
        there = at < columns
        x = tl.load(products + row * stride + at, mask=there, other=0.0)
        if has_bias:
            x += tl.load(biases + at, mask=there, other=0.0).to(tl.float32)
        if kind == 1:
            x = x * number
        if kind == 2:
            x = x / number
        if kind == 3:
            u = x / number
            e = tl.exp(-2.0 * tl.abs(u))
            large = (1.0 - e) / (1.0 + e)
            square = u * u
            small = u * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * 17.0 / 315.0)))
            x = number * tl.where(tl.abs(u) < 0.1, small, tl.where(u < 0.0, -large, large))
        x = tl.where(there, x, float("-inf"))
        if (wanted >= first) & (wanted < first + block) & (wanted < columns):
            label = tl.sum(tl.where(at == wanted, x, 0.0), 0)
        # The block's own numbers.
        b_top = tl.maximum(tl.max(x, 0), lowest)
        if b_top > top:
            best = (start + first + tl.argmax(x, 0)).to(tl.int64)
        z = tl.where(x == float("-inf"), lowest, x - b_top)
        weight = tl.exp(z)
        b_mass = tl.sum(weight, 0)
        # Merged with those of the columns before.
        new_top = tl.maximum(top, b_top)
        of_a = tl.exp(top - new_top)
        of_b = tl.exp(b_top - new_top)
        mass_a = mass * of_a
        mass_b = b_mass * of_b
        mass = mass_a + mass_b
        if moments:
            b_mean = tl.sum(weight * z, 0) / tl.where(b_mass < 1.0, 1.0, b_mass)
            away = z - b_mean
            b_spread = tl.sum(weight * away * away, 0)
            whole = tl.where(mass < 1.0, 1.0, mass)
            mean_a = mean + (top - new_top)
            mean_b = b_mean + (b_top - new_top)
            gap = tl.where(mass_a * mass_b > 0.0, mean_b - mean_a, 0.0)
            mean = (mass_a * mean_a + mass_b * mean_b) / whole
            spread = spread * of_a + b_spread * of_b + gap * gap * mass_a * (mass_b / whole)
        top = new_top
    tl.store(state, top)
    tl.store(state + rows, mass)
    tl.store(state + 2 * rows, mean)
    tl.store(state + 3 * rows, spread)
    tl.store(state + 4 * rows, label)
    tl.store(where + row, best)


_kernel = triton.jit(_fold)
