"""An attack that learns from all others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raymia.attacks.base import EVERY, Attack, Scores, answered, register
from raymia.evidence.text import TextEvidence
from raymia.metrics.learning import Bools, Features, fold_of
from raymia.util.column import hashes_of


@register
@dataclass(frozen=True)
class LearnedCombination(Attack):
    """A logistic regression over the scores of the audit's other attacks; no published attack.

    It learns from the attacks that are fitted on no label of the audit's records: the scores of the
    others hold the labels of records that it is judged by. Cross-fitted: records fall into folds by
    their content (by their group where they have one), and a record's score is the log-odds that a
    regression fitted on the other folds gives it. A candidate that shares no group with them gets
    the mean over all folds. It knows which records of the audit are members, so it bounds what an
    attacker could learn who knew as much; it shows what the attacks find together. Its score of a
    record depends on the other records. A regression that has more than 131,072 records to learn
    from is fitted on so many, drawn: as many members as non-members, as far as there are. No score
    where no attack that it learns from has one, or fewer than 10 members or non-members are left to
    fit on.

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
        count = len(records.is_member)
        if not records.scores:
            return np.full(count, np.nan)
        features = Features(list(records.scores.values()))
        has_any = features.are_there()
        known = np.fromiter((label is not None for label in records.is_member), np.bool_, count)
        labels = np.fromiter((bool(label) for label in records.is_member), np.bool_, count)
        folds = fold_of(records.units, self.folds, "fold of a learned attack")
        free = _shares_no_unit(records.units, known)
        total, found = np.zeros(count), np.zeros(count, np.int16)
        for fold in range(self.folds):
            learnt = known & has_any & (folds != fold)
            model = features.fit(learnt, labels, f"records that fold {fold} is not judged by")
            judged = has_any & ((folds == fold) | free)
            if model is not None and judged.any():
                total[judged] += features.judged(model, judged)
                found[judged] += 1
        scores: Scores = total / np.where(found > 0, found, np.nan)
        return scores


def _shares_no_unit(units: Sequence[str], known: Bools) -> Bools:
    """The records that no record of known membership shares a unit with, [records].

    Two units of one hash count as one, and their records are judged by what saw neither.
    """
    free = np.zeros(len(known), np.bool_)
    if not known.all():
        hashes = hashes_of(units)
        free[~known] = ~np.isin(hashes[~known], hashes[known])
    return free
