"""Members and non-members for the shift gate: real passages, digits and photographs."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
from sklearn.datasets import load_sample_images
from small_audit import ASSETS
from small_image_audit import digits

from raymia.shift.check import KnownRecords, check_shift

EARLY = ("Sense and Sensibility", "Northanger Abbey", "Pride and Prejudice")


def austen(novels=None):
    """Passages of Jane Austen's, of some novels or of all six."""
    rows = pq.read_table(ASSETS / "text" / "austen.parquet").to_pylist()
    return [row["text"] for row in rows if novels is None or row["novel"] in novels]


def king_james():
    return pq.read_table(ASSETS / "text" / "kjv.parquet")["text"].to_pylist()


def some(things, count, seed=0):
    """A random choice, in random order."""
    order = np.random.default_rng(seed).permutation(len(things))[:count]
    return [things[n] for n in order.tolist()]


def texts(members, non_members, units=None, references=None):
    ids = [f"m{n}" for n in range(len(members))] + [f"n{n}" for n in range(len(non_members))]
    return KnownRecords(
        ids,
        np.array([i.startswith("m") for i in ids]),
        units or ids,
        [*members, *non_members],
        None,
        references or {},
    )


def images(members, non_members, captions=None):
    ids = [f"m{n}" for n in range(len(members))] + [f"n{n}" for n in range(len(non_members))]
    return KnownRecords(
        ids,
        np.array([i.startswith("m") for i in ids]),
        ids,
        captions or [""] * len(ids),
        np.array([*members, *non_members]),
        {},
    )


def photographs(which, count, side=32, seed=0):
    """Clippings of one of two photographs, uint8 [count, 3, side, side]."""
    whole = load_sample_images().images[which]
    draws = np.random.default_rng(seed)
    rows = draws.integers(whole.shape[0] - side, size=count)
    columns = draws.integers(whole.shape[1] - side, size=count)
    clippings = [whole[y : y + side, x : x + side] for y, x in zip(rows, columns, strict=True)]
    return np.array(clippings).transpose(0, 3, 1, 2)


def check(records, seed=0, error_rate=0.05):
    return check_shift(records, error_rate=error_rate, seed=seed).check


def guess(found, name):
    return next(one for one in found.guesses if one.name == name)


def split_digits(count, seed):
    """Two random halves of some digits."""
    chosen = some(list(digits()), 2 * count, seed)
    return chosen[:count], chosen[count:]
