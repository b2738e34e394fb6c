"""What is needed of a token's logits, folded tile by tile, so that no row of them is ever whole.

Of the logits x of a tile, and of all tiles so far, five numbers are kept for each token::

    top      max x                               and where it was first
    mass     sum e^z                             z = x - top
    mean     sum z e^z / mass
    spread   sum (z - mean)^2 e^z
    label    the label's x

mean and spread say what sum z e^z and sum z^2 e^z say, without taking one large number from
another. Two sets are merged as Chan, Golub and LeVeque merge the moments of two samples (1979,
equation 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy.typing as npt
import torch

Tensor = torch.Tensor
FLOOR = -1e30
"""Stands for a logit of minus infinity, whose weight is 0: 0 times it is 0, not NaN."""


@dataclass(frozen=True)
class After:
    """What a model does to the products of its output layer.

    Attributes
    ----------
    kind : nothing; x * number; x / number; number * tanh(x / number).
    """

    kind: Literal["nothing", "multiply", "divide", "cap"] = "nothing"
    number: float = 1.0

    def of(self, products: Tensor, out: Tensor | None = None) -> Tensor:
        """The logits; ``out`` may be the products."""
        if self.kind == "multiply":
            return torch.mul(products, self.number, out=out)
        if self.kind == "divide":
            return torch.div(products, self.number, out=out)
        if self.kind == "cap":
            capped = torch.tanh(torch.div(products, self.number, out=out), out=out)
            return torch.mul(capped, self.number, out=out)
        return products


@dataclass(frozen=True)
class Columns:
    """What was asked of each token.

    Attributes
    ----------
    log_prob : float32 [tokens], natural log-probability of its label.
    mean, std : float32 [tokens], mean and standard deviation of log p(z) for z drawn from p.
    is_top1 : bool [tokens], whether the label is the first of the largest logits.
    """

    log_prob: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    is_top1: Tensor | None = None

    def fetched(self) -> tuple[npt.NDArray[Any] | None, ...]:
        """The same in the computer's memory, in one copy from the device."""
        if self.mean is None or self.std is None or self.is_top1 is None:
            return self.log_prob.cpu().numpy(), None, None, None
        columns = [self.log_prob, self.mean, self.std, self.is_top1.float()]
        log_prob, mean, std, is_top1 = torch.stack(columns).cpu().numpy()
        return log_prob, mean, std, is_top1 == 1


class Fold(Protocol):
    """Takes the tiles of some tokens, from the first column to the last."""

    def add(self, products: Tensor, bias: Tensor | None, start: int) -> None:
        """Take a tile, float32 [tokens, columns], which may be overwritten.

        Parameters
        ----------
        bias : [columns]; None where the products have it already.
        start : the tile's first column.
        """

    def columns(self) -> Columns:
        """The answers, when every column was taken."""


@dataclass
class Sums:
    """The five numbers of each token, and the column of the largest logit; all [tokens]."""

    top: Tensor
    where: Tensor
    mass: Tensor
    mean: Tensor | None
    spread: Tensor | None

    def columns(self, label: Tensor, labels: Tensor) -> Columns:
        """The answers.

        Parameters
        ----------
        label : the labels' logits.
        labels : the labels.
        """
        log_mass = self.mass.log()
        log_prob = label - self.top - log_mass
        if self.mean is None or self.spread is None:
            return Columns(log_prob)
        variance = self.spread / self.mass
        return Columns(log_prob, self.mean - log_mass, variance.sqrt(), self.where == labels)


class TorchFold:
    """The fold in plain torch, on any device.

    Parameters
    ----------
    labels : int64 [tokens].
    """

    copies = 2
    """Tiles that it holds at once: logits and weights."""

    def __init__(self, labels: Tensor, after: After, *, moments: bool) -> None:
        self.labels, self.after, self.moments = labels, after, moments
        self.label = torch.full_like(labels, torch.nan, dtype=torch.float32)
        self.sums: Sums | None = None

    def add(self, products: Tensor, bias: Tensor | None, start: int) -> None:
        if bias is not None:
            products.add_(bias)
        logits = self.after.of(products, out=products)
        at = self.labels - start
        inside = (at >= 0) & (at < logits.shape[1])
        found = logits.gather(-1, at.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        self.label = torch.where(inside, found, self.label)
        sums = _sums(logits, start, self.moments)
        self.sums = sums if self.sums is None else _merged(self.sums, sums)

    def columns(self) -> Columns:
        if self.sums is None:
            raise ValueError("no tile was added")
        return self.sums.columns(self.label, self.labels)


def _sums(logits: Tensor, start: int, moments: bool) -> Sums:
    """Of one tile, which is overwritten: it is large and each pass over it is slow."""
    top, where = logits.max(-1)
    top = top.clamp_min_(FLOOR)
    shifted = logits.sub_(top[:, None])
    weights = shifted.clamp_min_(FLOOR).exp()
    mass = weights.sum(-1)
    if not moments:
        return Sums(top, where + start, mass, None, None)
    # The largest logit alone has weight 1; where all are minus infinity, the mass is 0.
    mean = torch.linalg.vecdot(weights, shifted) / mass.clamp_min(1)
    deviation = shifted.sub_(mean[:, None])
    spread = torch.linalg.vecdot(weights.mul_(deviation), deviation)
    return Sums(top, where + start, mass, mean, spread)


def _merged(a: Sums, b: Sums) -> Sums:
    """Of earlier columns and of later ones; of equal largest logits the first counts."""
    top = torch.maximum(a.top, b.top)
    where = torch.where(b.top > a.top, b.where, a.where)
    of_a, of_b = (a.top - top).exp(), (b.top - top).exp()
    mass_a, mass_b = a.mass * of_a, b.mass * of_b
    mass = mass_a + mass_b
    if a.mean is None or b.mean is None or a.spread is None or b.spread is None:
        return Sums(top, where, mass, None, None)
    whole = mass.clamp_min(1)
    mean_a, mean_b = a.mean + (a.top - top), b.mean + (b.top - top)
    mean = (mass_a * mean_a + mass_b * mean_b) / whole
    # Where one side has no mass its mean says nothing, and may be as low as the floor.
    gap = torch.where(mass_a * mass_b > 0, mean_b - mean_a, 0)
    spread = a.spread * of_a + b.spread * of_b + gap * gap * mass_a * (mass_b / whole)
    return Sums(top, where, mass, mean, spread)
