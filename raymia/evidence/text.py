"""Evidence on text records, laid out for attacks: arrays over records, aligned by record id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenEvidence:
    """Token answers of one model, ragged: record i owns ``offsets[i]:offsets[i + 1]``.

    Attributes
    ----------
    offsets : int64 [records + 1]. A record without evidence owns nothing.
    token_ids : int32 [tokens].
    log_prob, mean_log_prob, std_log_prob : float32 [tokens], natural logarithms.
    is_top1 : bool [tokens].
    """

    offsets: npt.NDArray[np.int64]
    token_ids: npt.NDArray[np.int32]
    log_prob: npt.NDArray[np.float32]
    mean_log_prob: npt.NDArray[np.float32]
    std_log_prob: npt.NDArray[np.float32]
    is_top1: npt.NDArray[np.bool_]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Scored tokens per record, [records]."""
        return np.diff(self.offsets)

    def per_record(self, values: npt.NDArray[np.floating]) -> list[npt.NDArray[np.floating]]:
        """Cut an array over tokens into one array per record."""
        return np.split(values, self.offsets[1:-1])

    def mean(self) -> Floats:
        """Mean log-probability per token of each record, [records]; NaN without evidence."""
        return segment_mean(self.log_prob, self.offsets)


@dataclass(frozen=True)
class NeighborEvidence:
    """Summed answers of one model on each record's neighbors; NaN where there is none.

    Attributes
    ----------
    mean_log_prob : float64 [records, neighbors], mean log-probability per token.
    """

    mean_log_prob: Floats


@dataclass(frozen=True)
class ModelEvidence:
    """What one model answered."""

    tokens: TokenEvidence
    neighbors: NeighborEvidence | None = None


@dataclass(frozen=True)
class TextEvidence:
    """What an attack on text records may look at.

    Attributes
    ----------
    texts : the records' texts, [records].
    target : answers of the checkpoint under audit.
    reference : answers of the reference that the attack runs with, where it runs with one.
    """

    texts: Sequence[str]
    target: ModelEvidence
    reference: ModelEvidence | None = None


def token_evidence(table: pa.Table | None, record_ids: Sequence[str]) -> TokenEvidence:
    """Align a table of ``text.tokens`` with records; rows with an error count as no evidence."""
    rows: dict[str, int] = {}
    if table is not None:
        usable = zip(table["record_id"].to_pylist(), table["error"].to_pylist(), strict=True)
        rows = {record: i for i, (record, error) in enumerate(usable) if error is None}
    picked = [rows[r] for r in record_ids if r in rows]

    def column(name: str, dtype: type[Any]) -> npt.NDArray[Any]:
        if table is None or not picked:
            return np.zeros(0, dtype)
        chunk = table[name].take(pa.array(picked)).combine_chunks()
        flat: npt.NDArray[Any] = chunk.flatten().to_numpy(zero_copy_only=False)
        return flat.astype(dtype, copy=False)

    lengths = np.zeros(len(record_ids), np.int64)
    if table is not None and picked:
        sizes = table["log_prob"].take(pa.array(picked)).combine_chunks().value_lengths()
        have = np.array([r in rows for r in record_ids])
        lengths[have] = sizes.to_numpy(zero_copy_only=False)
    return TokenEvidence(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        token_ids=column("token_ids", np.int32),
        log_prob=column("log_prob", np.float32),
        mean_log_prob=column("mean_log_prob", np.float32),
        std_log_prob=column("std_log_prob", np.float32),
        is_top1=column("is_top1", np.bool_),
    )


def neighbor_evidence(
    table: pa.Table | None, record_ids: Sequence[str], count: int
) -> NeighborEvidence:
    """Align a table of ``text.neighbors`` with records, neighbors 1 to ``count``."""
    mean = np.full((len(record_ids), count), np.nan)
    if table is not None:
        places = {record: i for i, record in enumerate(record_ids)}
        columns = ("record_id", "neighbor", "log_prob_sum", "token_count", "error")
        for record, neighbor, total, tokens, error in zip(
            *(table[c].to_pylist() for c in columns), strict=True
        ):
            if error is None and record in places and 1 <= neighbor <= count:
                mean[places[record], neighbor - 1] = total / tokens
    return NeighborEvidence(mean)


def segment_mean(values: npt.NDArray[np.floating], offsets: npt.NDArray[np.int64]) -> Floats:
    """Mean of each segment of a ragged array, in float64; NaN for an empty segment.

    Each segment is summed by itself, so that a record's mean does not depend on the others.
    """
    counts = np.diff(offsets)
    means = np.full(len(counts), np.nan)
    filled = counts > 0
    if filled.any():
        sums = np.add.reduceat(values.astype(np.float64), offsets[:-1][filled])
        means[filled] = sums / counts[filled]
    return means
