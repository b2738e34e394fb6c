"""How good a run's neighbors are: a pure function of stored evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from raymia.evidence.text import Floats, neighbor_evidence, token_evidence
from raymia.results.result import NeighborQuality
from raymia.util.optional import require


@dataclass(frozen=True)
class ReferenceAnswers:
    """What a reference said of records and of their neighbors.

    Attributes
    ----------
    tokens, neighbors : tables of ``text.tokens`` and ``text.neighbors``; None where there is none.
    """

    name: str
    tokens: pa.Table | None
    neighbors: pa.Table | None


def neighbor_quality(
    kind: str,
    made: pa.Table | None,
    texts: Mapping[str, str],
    count: int,
    reference: ReferenceAnswers | None,
    of_records: int | None = None,
) -> NeighborQuality:
    """Sum up the neighbors of a run.

    Parameters
    ----------
    kind : how they were made, as the audit file says it.
    made : rows of :data:`raymia.neighbors.drafts.NEIGHBOR_SCHEMA`; other records' rows, and those
        beyond ``count``, are left out.
    texts : the run's records, by id.
    count : neighbors per record.
    reference : whose log-probabilities are compared; None where the run has no reference.
    of_records : how many records there are, where these are a sample of them.
    """
    stored = [] if made is None else made.to_pylist()
    rows = [row for row in stored if row["record_id"] in texts and 1 <= row["neighbor"] <= count]
    pairs = [(texts[r["record_id"]], r["payload"]) for r in rows if r["error"] is None]
    attempts = sum(row["attempts"] for row in rows)
    gaps = np.zeros(0) if reference is None else _log_prob_gaps(reference, list(texts), count)
    return NeighborQuality(
        kind=kind,
        made=len(pairs),
        not_made=len(rows) - len(pairs),
        masked_share=_mean([row["masked_share"] for row in rows if row["error"] is None]),
        identical=_mean([text == neighbor for text, neighbor in pairs]),
        failed_attempts=(attempts - len(pairs)) / attempts if attempts else None,
        edit_distance=_mean([edit_distance(text, neighbor) for text, neighbor in pairs]),
        reference=None if reference is None or not gaps.size else reference.name,
        log_prob_gap=_mean(gaps),
        of_records=of_records,
    )


def edit_distance(a: str, b: str) -> float:
    """Words inserted, deleted or replaced between two texts, over the longer one's words."""
    require("rapidfuzz", "measures of neighbors")
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_distance(a.split(), b.split()))


def _log_prob_gaps(reference: ReferenceAnswers, ids: list[str], count: int) -> Floats:
    """Mean log-probability per token of each neighbor less its record's, where both are there."""
    records = token_evidence(reference.tokens, ids).mean()
    neighbors = neighbor_evidence(reference.neighbors, ids, count).mean_log_prob
    gaps = neighbors - records[:, None]
    compared: Floats = gaps[np.isfinite(gaps)]
    return compared


def _mean(values: list[float] | list[bool] | Floats) -> float | None:
    return float(np.mean(values)) if len(values) else None
