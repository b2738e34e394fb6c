"""Records that are nearly copies of others of their own side: they are no independent draws.

A model that likes one copy likes them all, so 50 members and their near-copies say no more than 50.
Copies are proposed as groups. Until they are given as groups, tests against chance count one record
of each cluster, or where groups were split, those of one group (:mod:`raymia.scoring.distinct`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from raymia.shift.images import Images, perceptual_hashes, small_gray
from raymia.shift.ngrams import ngrams, words
from raymia.shift.overlap import (
    AT_ONCE,
    BANDS,
    BITS_APART,
    SAME_PICTURE,
    SHINGLE,
    SIMILAR,
    by_text,
    directions,
    signatures,
)
from raymia.shift.result import LISTED, CopiesWithin

Pair = tuple[int, int]


def copies_within(
    clusters: Sequence[Sequence[Sequence[int]]],
    ids: Sequence[Sequence[str]],
    units: Sequence[Sequence[str]] | None = None,
) -> CopiesWithin:
    """Count near-copies of members and of non-members, and propose groups.

    Parameters
    ----------
    clusters : of members, and of non-members; rows of each cluster.
    ids : of members, and of non-members.
    units : likewise, the group of each record, or what names it alone; the ids without it.
    """
    groups = [
        {row: unit for row, unit in enumerate(own) if unit != ids[side][row]}
        for side, own in enumerate(units or ())
    ]
    across = sum(
        len({of[row] for row in cluster if row in of}) > 1
        for of, found in zip(groups, clusters, strict=False)
        for cluster in found
    )
    named = [
        [ids[side][row] for row in cluster]
        for side, found in enumerate(clusters)
        for cluster in found
    ]
    named.sort(key=len, reverse=True)
    copies = [sum(len(cluster) for cluster in found) for found in clusters]
    return CopiesWithin(
        members=copies[0],
        non_members=copies[1],
        groups=len(named),
        across_groups=across,
        proposed=[cluster[:LISTED] for cluster in named[:LISTED]],
    )


def copied_texts(texts: Sequence[str]) -> list[list[int]]:
    """Clusters of texts that are near-copies: linked by MinHash, then compared."""
    grams = ngrams(words(texts), SHINGLE)
    own = by_text(grams)
    rows, buckets = signatures(grams)
    found: set[Pair] = set()
    for band in range(BANDS if len(rows) else 0):
        order = np.argsort(buckets[:, band], kind="stable")
        same = np.flatnonzero(buckets[order[1:], band] == buckets[order[:-1], band])
        for at in same.tolist():
            one, other = sorted((int(rows[order[at]]), int(rows[order[at + 1]])))
            found.add((one, other))

    def alike(pair: Pair) -> bool:
        one, other = own[pair[0]], own[pair[1]]
        both = len(np.intersect1d(one, other, assume_unique=True))
        return both >= SIMILAR * (len(one) + len(other) - both)

    return linked(pair for pair in sorted(found) if alike(pair))


def copied_images(images: Iterable[Images]) -> list[list[int]]:
    """Clusters of images that are near-copies: linked by pHash, then compared.

    Parameters
    ----------
    images : each uint8 [channels, height, width].
    """
    gray = small_gray(images)
    if not len(gray):
        return []
    bits = np.where(perceptual_hashes(gray), 1.0, -1.0).astype(np.float32)
    pixels = directions(gray)
    found: list[Pair] = []
    for start in range(0, len(bits), AT_ONCE):
        apart = (bits.shape[1] - bits[start : start + AT_ONCE] @ bits.T) / 2
        for row, other in np.argwhere(apart <= BITS_APART).tolist():
            one = start + row
            if one < other and float(pixels[one] @ pixels[other]) >= SAME_PICTURE:
                found.append((one, other))
    return linked(found)


def linked(pairs: Iterable[Pair]) -> list[list[int]]:
    """Put together what pairs link, directly or by others.

    Examples
    --------
    >>> linked([(0, 1), (4, 5), (1, 2)])
    [[0, 1, 2], [4, 5]]
    """
    leads: dict[int, int] = {}

    def first(row: int) -> int:
        while leads.setdefault(row, row) != row:
            leads[row] = leads[leads[row]]
            row = leads[row]
        return row

    for one, other in pairs:
        low, high = sorted((first(one), first(other)))
        leads[high] = low
    clusters: defaultdict[int, list[int]] = defaultdict(list)
    for row in sorted(leads):
        clusters[first(row)].append(row)
    return list(clusters.values())
