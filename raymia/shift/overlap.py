"""Records that are members and non-members at once, or nearly so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from raymia.shift.images import Images, perceptual_hashes, small_gray
from raymia.shift.ngrams import Hashes, Ngrams, ngrams, words
from raymia.shift.result import LISTED, NearDuplicate, NearDuplicates, NgramOverlap
from raymia.util.draws import generator

LONG, SHORT = 13, 8
"""Words of the n-grams that are compared; the short ones where a text has no long one."""
MOSTLY = 0.8
SHINGLE = 3
SIMILAR = 0.5
BANDS, ROWS = 40, 3
"""MinHash: two texts whose Jaccard similarity is s meet with a chance of 1 - (1 - s^3)^40, which is
99.5 % at 0.5."""
BUCKET = 5
"""Members of one bucket that a non-member is compared with; more are copies of each other."""
VERIFIED = 3
BITS_APART = 8
SAME_PICTURE = 0.98
"""Of the 1.6 million pairs of digits that scikit-learn ships, 9 are within both."""
AT_ONCE = 1_000

Rows = npt.NDArray[np.int64]


def ngram_overlap(
    members: Sequence[str], non_members: Sequence[str], ids: Sequence[str]
) -> NgramOverlap:
    """Find the non-members that mostly stand in members (Duan et al. 2024, 13-grams, 80 %).

    Parameters
    ----------
    ids : of the non-members.
    """
    inside, outside = words(members), words(non_members)
    sizes = np.diff(outside.offsets)
    shares = np.full(len(ids), np.nan)
    for n, rows in ((LONG, sizes >= LONG), (SHORT, (sizes >= SHORT) & (sizes < LONG))):
        if rows.any():
            grams = ngrams(outside, n)
            found = np.isin(grams.hashes, ngrams(inside, n).hashes)
            hits = np.bincount(grams.owners, weights=found, minlength=len(ids))
            shares[rows] = hits[rows] / grams.counts[rows]
    long_enough = ~np.isnan(shares)
    mostly = [ids[row] for row in np.flatnonzero(shares >= MOSTLY).tolist()]
    return NgramOverlap(
        threshold=MOSTLY,
        looked_at=int(long_enough.sum()),
        too_short=int((~long_enough).sum()),
        mean_share=float(shares[long_enough].mean()) if long_enough.any() else None,
        mostly=len(mostly),
        records=mostly[:LISTED],
    )


def near_duplicate_texts(
    members: Sequence[str],
    non_members: Sequence[str],
    member_ids: Sequence[str],
    non_member_ids: Sequence[str],
) -> NearDuplicates:
    """Find the non-members that nearly are a member: candidates by MinHash, then compared."""
    inside, outside = (ngrams(words(texts), SHINGLE) for texts in (members, non_members))
    own, others = by_text(inside), by_text(outside)
    best: dict[int, tuple[float, int]] = {}
    for non_member, member in _candidates(inside, outside):
        both = len(np.intersect1d(others[non_member], own[member], assume_unique=True))
        similarity = both / (len(others[non_member]) + len(own[member]) - both)
        if similarity >= SIMILAR and similarity > best.get(non_member, (0.0, 0))[0]:
            best[non_member] = (similarity, member)
    return near_duplicates(
        [(similarity, member, row) for row, (similarity, member) in best.items()],
        member_ids,
        non_member_ids,
        measure=f"Jaccard similarity of the words, {SHINGLE} by {SHINGLE}",
        threshold=SIMILAR,
    )


def near_duplicate_images(
    members: Iterable[Images],
    non_members: Iterable[Images],
    member_ids: Sequence[str],
    non_member_ids: Sequence[str],
) -> NearDuplicates:
    """Find the non-members that nearly are a member: candidates by pHash, then compared.

    Parameters
    ----------
    members, non_members : each image uint8 [channels, height, width].
    """
    inside, outside = small_gray(members), small_gray(non_members)
    own, others = (
        np.where(perceptual_hashes(g), 1.0, -1.0).astype(np.float32) for g in (inside, outside)
    )
    bits, found = own.shape[1], []
    inside, outside = directions(inside), directions(outside)
    for start in range(0, len(others), AT_ONCE):
        apart = (bits - others[start : start + AT_ONCE] @ own.T) / 2
        for row in np.flatnonzero((apart <= BITS_APART).any(axis=1)):
            near = np.flatnonzero(apart[row] <= BITS_APART)
            correlations = inside[near] @ outside[start + row]
            best = int(correlations.argmax())
            if correlations[best] >= SAME_PICTURE:
                similarity = min(1.0, float(correlations[best]))
                found.append((similarity, int(near[best]), int(start + row)))
    return near_duplicates(
        found,
        member_ids,
        non_member_ids,
        measure="correlation of the pixels in gray, at 32 by 32",
        threshold=SAME_PICTURE,
    )


def directions(gray: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Centered and scaled to length 1, so that products are correlations; 0 for one color."""
    flat = gray.reshape(len(gray), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    directions: npt.NDArray[np.float64] = flat / np.where(lengths > 0, lengths, 1.0)
    return directions


def near_duplicates(
    found: Sequence[tuple[float, int, int]],
    member_ids: Sequence[str],
    non_member_ids: Sequence[str],
    *,
    measure: str,
    threshold: float,
) -> NearDuplicates:
    """List what was found.

    Parameters
    ----------
    found : similarity, row of the member and row of the non-member, at most one per non-member.
    """
    order = sorted(found, key=lambda pair: (-pair[0], pair[2]))
    return NearDuplicates(
        measure=measure,
        threshold=threshold,
        non_members=len(found),
        pairs=[
            NearDuplicate(
                non_member=non_member_ids[row], member=member_ids[member], similarity=similarity
            )
            for similarity, member, row in order[:LISTED]
        ],
    )


def by_text(grams: Ngrams) -> list[Hashes]:
    """The distinct n-grams of each text."""
    return [np.unique(part) for part in np.split(grams.hashes, np.cumsum(grams.counts)[:-1])]


def _candidates(inside: Ngrams, outside: Ngrams) -> Iterator[tuple[int, int]]:
    """Pairs of a non-member and a member that meet most often, a few per non-member."""
    rows, outer = signatures(outside)
    member_rows, inner = signatures(inside)
    met: list[Rows] = []
    for band in range(BANDS):
        buckets, own = outer[:, band], inner[:, band]
        order = np.argsort(own, kind="stable")
        first = np.searchsorted(own[order], buckets, "left")
        last = np.searchsorted(own[order], buckets, "right")
        for step in range(BUCKET):
            there = first + step < last
            members = member_rows[order[(first + step)[there]]]
            met.append(np.column_stack([rows[there], members]))
    pairs, times = np.unique(np.concatenate(met), axis=0, return_counts=True)
    taken: dict[int, int] = {}
    for at in np.lexsort((pairs[:, 1], -times)):
        non_member, member = int(pairs[at, 0]), int(pairs[at, 1])
        taken[non_member] = taken.get(non_member, 0) + 1
        if taken[non_member] <= VERIFIED:
            yield non_member, member


def signatures(grams: Ngrams) -> tuple[Rows, Hashes]:
    """The texts that have n-grams, and the bucket of each in every band."""
    rows = np.flatnonzero(grams.counts)
    if not len(rows):
        return rows, np.zeros((0, BANDS), np.uint64)
    starts = np.searchsorted(grams.owners, rows)
    keys = generator("minhash").integers(1, 2**63, size=(2, BANDS * ROWS), dtype=np.uint64)
    buckets = np.zeros((len(rows), BANDS), np.uint64)
    for place, (factor, shift) in enumerate(keys.T):
        # Multiply-shift hashing takes an odd factor; what is smallest is as good as random.
        hashed = ((grams.hashes ^ shift) * (factor | np.uint64(1))) >> np.uint64(1)
        band = place // ROWS
        smallest = np.minimum.reduceat(hashed, starts)
        buckets[:, band] = buckets[:, band] * np.uint64(0x9E3779B97F4A7C15) + smallest
    return rows, buckets
