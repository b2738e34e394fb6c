"""The best setting of each attack, and what it is worth on records it was not chosen on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from raymia.attacks.base import Scores
from raymia.metrics import held_out
from raymia.metrics.measuring import measure
from raymia.metrics.summary import AttackMetrics, HeldOutRates
from raymia.scoring.evidence import TargetEvidence
from raymia.spec import AuditSpec, ObjectiveSpec
from raymia.sweep.evaluate import Split, scores_by_half
from raymia.sweep.result import Half, Row, Winner
from raymia.sweep.work import Case


def find_winners(
    rows: Sequence[Row],
    evidence: Mapping[Case, TargetEvidence],
    halves: Split,
    rates: Sequence[float],
    objective: ObjectiveSpec,
    spec: AuditSpec,
) -> list[Winner]:
    """Choose by the calibration half, and measure both halves with intervals.

    Returns
    -------
    One winner for each target and attack of which anything could be measured, by target and then
    the evaluation's objective.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.found.objective(rates, objective) is not None:
            place = row.setting.place
            groups.setdefault((place.target, place.swept), []).append(row)
    targets = list(dict.fromkeys(target for target, _ in groups))
    found = []
    for (target, _), tried in groups.items():
        best = max(tried, key=lambda row: _merit(row, rates, objective))
        winner = _winner(best, len(tried), evidence, halves, rates, objective, spec)
        if winner is not None:
            found.append((targets.index(target), -_judged(best, rates, objective), winner))
    return [winner for _, _, winner in sorted(found, key=lambda entry: entry[:2])]


def _merit(row: Row, rates: Sequence[float], objective: ObjectiveSpec) -> tuple[float, float]:
    """What settings are compared by: the objective, and the AUC where that is the same."""
    assert row.found.calibration is not None
    return row.found.objective(rates, objective) or 0.0, row.found.calibration.auc


def _judged(row: Row, rates: Sequence[float], objective: ObjectiveSpec) -> float:
    points = row.found.evaluation
    if points is None:
        return 0.0
    if objective.metric == "auc":
        return points.auc
    return points.tpr[list(rates).index(objective.fpr)] or 0.0


def _winner(
    row: Row,
    tried: int,
    evidence: Mapping[Case, TargetEvidence],
    halves: Split,
    rates: Sequence[float],
    objective: ObjectiveSpec,
    spec: AuditSpec,
) -> Winner | None:
    setting = row.setting
    named = setting.named(spec.records.kind)
    given = evidence[setting.place.target, setting.place.query].given_to(named, {})
    scores = scores_by_half(setting.place, named.attack, given, halves)
    fitted = named.attack.is_fitted_on_labels(bool(getattr(given, "shadows", ())))

    def half(name: str) -> Half | None:
        rows = getattr(halves, name)
        metrics = measure(
            scores[name][rows],
            halves.is_member[rows],
            target=setting.place.target,
            attack=setting.place.label,
            fprs=rates,
            fitted=fitted,
            confidence=spec.metrics.confidence,
            seed=spec.seed,
        )
        if not isinstance(metrics, AttackMetrics):
            return None
        return Half(
            n_members=metrics.n_members,
            n_non_members=metrics.n_non_members,
            auc=metrics.auc,
            tpr=[point.estimate for point in metrics.tpr],
        )

    calibration = half("calibration")
    if calibration is None:
        return None
    threshold = None
    # An attack that learns has scores of its own on each half, which no threshold is shared by.
    if objective.metric == "tpr" and scores["calibration"] is scores["evaluation"]:
        threshold = _held_out(scores["evaluation"], halves, objective.fpr, spec)
    return Winner(
        target=setting.place.target,
        attack=setting.place.swept,
        label=setting.place.label,
        parameters=dict(setting.parameters),
        queries=dict(row.queries),
        tried=tried,
        calibration=calibration,
        evaluation=half("evaluation"),
        held_out=threshold,
    )


def _held_out(scores: Scores, halves: Split, fpr: float, spec: AuditSpec) -> HeldOutRates | None:
    """The threshold of the calibration half on the evaluation half."""
    rows = (halves.calibration | halves.evaluation) & ~np.isnan(scores)
    split = held_out.Halves.split(scores[rows], halves.is_member[rows], halves.calibration[rows])
    return held_out.rates_held_out(
        split, fpr, priors=spec.metrics.priors, confidence=spec.metrics.confidence
    )
