"""Attacks that compare the target with a reference token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from raymia.attacks.base import Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence

Gains = npt.NDArray[np.float64]
MIN_ERRORS = 2
"""Error tokens below which EZ-MIA looks at all tokens."""


def compared_tokens(evidence: TextEvidence) -> Iterator[tuple[Gains, npt.NDArray[np.bool_]]]:
    """Of each record, token by token: log p_target - log p_ref, and whether the target's first
    choice was another token.

    Both are empty where there is nothing to compare: a model has no evidence, or the two cut the
    text into different tokens or cut it off at different lengths, so that the t-th token of one is
    not the t-th of the other.
    """
    target, reference = evidence.target.tokens, answered(evidence.reference).tokens
    for (start, end), (ref_start, ref_end) in zip(
        pairwise(target.offsets), pairwise(reference.offsets), strict=True
    ):
        if not np.array_equal(target.token_ids[start:end], reference.token_ids[ref_start:ref_end]):
            yield np.zeros(0), np.zeros(0, np.bool_)
            continue
        log_prob = target.log_prob[start:end].astype(np.float64)
        yield log_prob - reference.log_prob[ref_start:ref_end], ~target.is_top1[start:end]


@register
@dataclass(frozen=True)
class Ez(Attack):
    """EZ-MIA: share of what moved up where the target is wrong (Ilić et al., 2026).

    Over the error tokens, those that were not the target's first choice, P adds up the positive
    ``log p_target - log p_ref`` and N the size of the negative ones. The score is P / (P + N), from
    0 to 1: the order of the published P / N, and finite where nothing moved down. The released
    code gives 0 to those records, which are the surest members, and to those with fewer than two
    error tokens, which a target that knows its members by heart predicts entirely. Here the latter
    are compared on all their tokens: a text that the target alone knows scores close to 1, and one
    so easy that the reference knows it as well does not. 0.5 where no token moved. The released
    code also leaves out the first token that is scored, as if it were a beginning of text; here it
    counts as the others do.

    No score without a scored token, or where target and reference cut the text into different
    tokens.
    """

    name = "ez"
    title = "EZ-MIA"
    source = "Ilić et al. 2026, arXiv 2601.12104"
    formula = (
        "P / (P + N), P = sum_t max(d_t, 0), N = sum_t max(-d_t, 0), "
        "d_t = log p_target(x_t | x_<t) - log p_ref(x_t | x_<t), t where x_t != argmax p_target"
    )
    needs = frozenset({"reference", "token_ids"})

    def score(self, evidence: TextEvidence) -> Scores:
        return np.array([_share_moved_up(*tokens) for tokens in compared_tokens(evidence)])


def _share_moved_up(gains: Gains, is_error: npt.NDArray[np.bool_]) -> float:
    if len(gains) == 0:
        return float("nan")
    zone = gains[is_error] if is_error.sum() >= MIN_ERRORS else gains
    total = np.abs(zone).sum()
    return float(zone[zone > 0].sum() / total) if total > 0 else 0.5


@register
@dataclass(frozen=True)
class Wbc(Attack):
    """WBC: share of the text's windows that the target knows better (Chen et al., 2026).

    For each size the share of the windows, one starting at each token, whose summed loss is higher
    under the reference than under the target; then the mean over the sizes. Sizes longer than the
    text are left out; released code takes the whole text as one window for each of these, so that
    a short text is decided by its sum, many times over. No score where that leaves none, or where
    target and reference cut the text into different tokens.

    Parameters
    ----------
    windows : sizes in tokens, as "2,3,4".
    """

    windows: str = "2,3,4,6,9,13,18,25,32,40"

    name = "wbc"
    title = "WBC"
    source = "Chen et al. 2026, arXiv 2601.02751"
    formula = (
        "mean_w of the share of windows of w tokens where "
        "sum -log p_ref(x_t | x_<t) > sum -log p_target(x_t | x_<t)"
    )
    needs = frozenset({"reference", "token_ids"})

    def __post_init__(self) -> None:
        window_sizes(self.windows)

    def score(self, evidence: TextEvidence) -> Scores:
        sizes = window_sizes(self.windows)
        return np.array([_share_won(gains, sizes) for gains, _ in compared_tokens(evidence)])


def window_sizes(windows: str) -> list[int]:
    """Read "2,3,4"; a lone number, as an audit file may give it, counts too.

    Raises
    ------
    ValueError
        For anything but different whole numbers above 0.

    Examples
    --------
    >>> window_sizes("2,3,4")
    [2, 3, 4]
    """
    try:
        sizes = [int(size) for size in str(windows).split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or len(set(sizes)) < len(sizes):
        raise ValueError(
            f"windows should be different whole numbers above 0, as '2,3,4', but got {windows!r}"
        )
    return sizes


def _share_won(gains: Gains, sizes: list[int]) -> float:
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    shares = [np.mean(sums[w:] > sums[:-w]) for w in sizes if w <= len(gains)]
    return float(np.mean(shares)) if shares else float("nan")
