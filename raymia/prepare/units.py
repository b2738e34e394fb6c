"""Units of records that belong together, drawn so that none is likelier than another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def drawn_units(
    sizes: Sequence[int], wanted: Sequence[int], draws: np.random.Generator
) -> list[list[int]]:
    """Draw units for each of several sides.

    The units lie on a circle in random order, and the sides are stretches of it from a random place
    on. A unit is on the side that its middle lies on, so the chance of each is that side's share of
    the circle, whatever its size. To take units until a side is full would favor some sizes.

    Where units differ in size, a side can have more or fewer records than are wanted, by at most
    half of the unit at either end. No side is empty if no unit is larger than it.

    Parameters
    ----------
    sizes : records of each unit.
    wanted : records of each side; together no more than there are.

    Returns
    -------
    The numbers of the units of each side, in random order.

    Examples
    --------
    >>> drawn_units([1, 1, 1, 1], [1, 2], np.random.default_rng(0))
    [[2], [0, 1]]
    """
    order = draws.permutation(len(sizes))
    laid = np.array(sizes)[order]
    # Where all are of one size, the order alone makes chances equal.
    is_even = len({*sizes}) == 1
    begin = 0.0 if is_even else draws.random() * laid.sum()
    middles = (laid.cumsum() - laid / 2 - begin) % laid.sum()
    ends = np.cumsum([0, *wanted])
    return [order[(low <= middles) & (middles < high)].tolist() for low, high in pairwise(ends)]
