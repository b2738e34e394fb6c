"""What attacks achieved as one flat table, for spreadsheets, notebooks and other tools."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from raymia.metrics.summary import AttackMetrics, Estimate, Metrics
from raymia.results.chance import Counted
from raymia.results.gate_figures import best_bound
from raymia.results.ranking import rank
from raymia.results.result import RunResult
from raymia.results.wording import budget


def every_row(result: RunResult) -> pa.Table:
    """All that attacks achieved in a run: on records, on distinct ones, and on groups."""
    return metrics_rows(result.metrics, result.distinct_metrics, result.group_metrics)


def metrics_rows(
    metrics: Iterable[Metrics],
    distinct_metrics: Iterable[Metrics] = (),
    group_metrics: Iterable[Metrics] = (),
) -> pa.Table:
    """One row for each attack on each target, best first within a target: of single records, then
    of distinct ones, then of groups.

    Returns
    -------
    pyarrow.Table
        ``target``, ``attack``, ``of`` (``records``, ``distinct`` or ``groups``), counts, ``auc``
        with ``auc_low`` and ``auc_high``; ``held_out_auc``, which the verdict tells, with its
        limits; for each budget of false positives ``tpr@1%fpr`` with its
        limits on all records, and ``held_out_tpr@1%fpr`` with its limits and
        ``held_out_fpr@1%fpr`` on those that did not choose the threshold;
        ``balanced_accuracy``, ``one_minus_eer``, ``epsilon`` (the bound that the calibration half
        chose); ``not_measured``: why a row has no numbers. Rates are between 0 and 1.
    """
    parts: dict[Counted, list[Metrics]] = {
        "records": list(metrics),
        "distinct": list(distinct_metrics),
        "groups": list(group_metrics),
    }
    measured = [m for part in parts.values() for m in part if isinstance(m, AttackMetrics)]
    fprs = sorted({at.max_fpr for m in measured for at in m.tpr}, reverse=True)
    names = list(_row(None, fprs))
    rows: list[dict[str, Any]] = []
    for of, part in parts.items():
        for ranking in rank(part):
            rows += [_counts(m, of) | _row(m, fprs) for m in ranking.measured]
            rows += [_counts(m, of) | {"not_measured": m.reason} for m in ranking.not_measured]
    return pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            [
                ("target", pa.string()),
                ("attack", pa.string()),
                ("of", pa.string()),
                *((name, pa.int64()) for name in ("n_members", "n_non_members", "n_unscored")),
                *((name, pa.float64()) for name in names),
                ("not_measured", pa.string()),
            ]
        ),
    )


def _counts(entry: Metrics, of: str) -> dict[str, Any]:
    return {
        "target": entry.target,
        "attack": entry.attack,
        "of": of,
        "n_members": entry.n_members,
        "n_non_members": entry.n_non_members,
        "n_unscored": entry.n_unscored,
    }


def _row(attack: AttackMetrics | None, fprs: Iterable[float]) -> dict[str, float | None]:
    """The numbers of an attack by their columns; nothing but columns without one."""
    row = _estimate("auc", None if attack is None else attack.auc)
    row |= _estimate("held_out_auc", None if attack is None else attack.held_out_auc)
    at = {} if attack is None else {tpr.max_fpr: tpr for tpr in attack.tpr}
    for fpr in fprs:
        found = at.get(fpr)
        held = None if found is None else found.held_out
        name = f"@{budget(fpr).replace(' ', '')}fpr"
        row |= _estimate(f"tpr{name}", None if found is None else found.estimate)
        row |= _estimate(f"held_out_tpr{name}", None if held is None else held.tpr)
        row[f"held_out_fpr{name}"] = None if held is None else held.fpr.value
    row |= _estimate("balanced_accuracy", None if attack is None else attack.balanced_accuracy)
    row["one_minus_eer"] = None if attack is None else attack.one_minus_eer
    best = None if attack is None else best_bound(attack)
    row["epsilon"] = None if best is None else best.value
    return row


def _estimate(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
