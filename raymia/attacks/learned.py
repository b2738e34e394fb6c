"""An attack that learns from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import EVERY, Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence
from raymia.metrics.learning import fit, fold_of


@register
@dataclass(frozen=True)
class LearnedCombination(Attack):
    """A logistic regression over the scores of the audit's other attacks; no published attack.

    Cross-fitted: records fall into folds by their content (by their group where they have one),
    and a record's score is the log-odds that a regression fitted on the other folds gives it. A
    candidate that shares no group with them gets the mean over all folds. It knows which records
    of the audit are members, so it bounds what an attacker could learn who knew as much; it shows
    what the attacks find together. Its score of a record depends on the other records. No score
    where no other attack has one, or fewer than 10 members or non-members are left to fit on.

    Parameters
    ----------
    folds : at least 2.
    """

    folds: int = 5

    name = "learned_combination"
    title = "Learned combination of all attacks"
    source = "raymia"
    formula = "cross-fitted log-odds of membership, linear in the other attacks' scores"
    records = (EVERY,)
    asks = ()
    needs = frozenset({"other_scores"})

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds should be at least 2, but got {self.folds}")

    def score(self, evidence: TextEvidence) -> Scores:
        records = answered(evidence.labelled)
        features = np.column_stack(list(records.scores.values()))
        has_any = ~np.isnan(features).all(axis=1)
        known = np.array([label is not None for label in records.is_member])
        labels = np.array([bool(label) for label in records.is_member])
        folds = fold_of(records.units, self.folds, "fold of a learned attack")
        labelled = {unit for unit, label in zip(records.units, known, strict=True) if label}
        free = np.array([unit not in labelled for unit in records.units])
        odds = np.full((self.folds, len(labels)), np.nan)
        for fold in range(self.folds):
            learnt = known & has_any & (folds != fold)
            model = fit(features[learnt], labels[learnt])
            judged = has_any & ((folds == fold) | free)
            if model is not None and judged.any():
                odds[fold, judged] = model.decision_function(features[judged])
        found = ~np.isnan(odds)
        total = np.where(found, odds, 0.0).sum(axis=0)
        scores: Scores = total / np.where(found.any(axis=0), found.sum(axis=0), np.nan)
        return scores
