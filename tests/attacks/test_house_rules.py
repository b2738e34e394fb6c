"""What holds of every attack there is, on whatever records."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import pytest
from known_by_heart import KINDS, NO_ANSWER, given, relabeled, take
from sklearn.metrics import roc_auc_score

from raymia.attacks import Attack, registry
from raymia.attacks.base import EVERY, when_no_score

FEW = {"folds": 2}
"""A rule holds with fewer networks, too."""
OF_EACH = {"fixed_variance": False, "prior_degrees": 4.0, "prior_variance": 1.0}
"""LiRA with each record's own variance, or with a prior that is given: one for all is of all by its
definition."""


@dataclass(frozen=True)
class Case:
    """An attack on a kind of records, alone or beside a reference."""

    records: str
    kind: type[Attack]
    beside_a_reference: bool

    @property
    def learns(self) -> bool:
        """Whether it is told which records are members."""
        return bool(self.kind.needs & {"labels", "other_scores"})

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted on some records to judge others."""
        return self.learns or "units" in self.kind.needs

    @property
    def evidence(self) -> Any:
        return given(self.kind, self.records, self.beside_a_reference)

    @property
    def scores(self) -> np.ndarray:
        return _scores(self)

    def score(self, evidence: Any, **parameters: Any) -> np.ndarray:
        return self.kind(**self.with_these(FEW), **parameters).score(evidence)

    def with_these(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some parameters that it has."""
        names = {field.name for field in fields(self.kind)}
        return {name: value for name, value in parameters.items() if name in names}

    def __str__(self) -> str:
        return f"{self.records}-{self.kind.name}{'@reference' * self.beside_a_reference}"


@cache
def _scores(case: Case) -> np.ndarray:
    """What all rules look at: some attacks take a second to be fitted."""
    return case.score(case.evidence)


CASES = [
    Case(records, kind, beside)
    for records in KINDS
    for kind in registry(records).values()
    for beside in (
        (False, True) if "reference_if_given" in kind.needs else ("reference" in kind.needs,)
    )
]


@pytest.mark.parametrize("case", CASES, ids=str)
class TestEveryAttack:
    def test_says_what_it_is(self, case: Case) -> None:
        assert all((case.kind.title, case.kind.source, case.kind.formula, case.kind.__doc__))
        assert {case.records, EVERY} & {*case.kind.records}
        assert registry(case.records)[case.kind.name] is case.kind

    def test_gives_every_record_a_float64_and_those_without_an_answer_nan(self, case: Case) -> None:
        found = case.scores
        assert found.dtype == np.float64
        assert found.shape == (len(KINDS[case.records].is_member),)
        reads_answers = bool(case.kind.asks) or "other_scores" in case.kind.needs
        assert np.flatnonzero(~np.isfinite(found)).tolist() == [NO_ANSWER] * reads_answers
        assert np.isnan(found[NO_ANSWER]) == reads_answers

    def test_scores_members_higher(self, case: Case) -> None:
        found = case.scores
        scored = np.isfinite(found)
        labels = np.array(KINDS[case.records].is_member)
        assert roc_auc_score(labels[scored], found[scored]) > 0.95

    def test_gives_the_same_evidence_the_same_scores(self, case: Case) -> None:
        np.testing.assert_array_equal(case.score(case.evidence), case.scores)

    def test_does_not_look_at_the_order_of_records(self, case: Case) -> None:
        expected = case.scores
        order = np.random.default_rng(3).permutation(len(expected))
        found = case.score(take(case.evidence, order))
        tolerance = 1e-5 if case.is_fitted else 1e-9
        np.testing.assert_allclose(found, expected[order], rtol=tolerance, atol=tolerance)

    def test_scores_a_record_alone_as_beside_others(self, case: Case) -> None:
        """What is fitted on the others has no score without them."""
        own = case.with_these(OF_EACH)
        together = case.score(case.evidence, **own) if own else case.scores
        for row in (0, 1, 2, NO_ANSWER, len(together) - 1):
            (alone,) = case.score(take(case.evidence, [row]), **own)
            expected = np.nan if case.is_fitted else together[row]
            np.testing.assert_allclose(alone, expected, rtol=1e-9, atol=1e-12)

    def test_sees_labels_only_if_it_says_so(self, case: Case) -> None:
        flipped = case.score(relabeled(case.evidence))
        assert np.array_equal(flipped, case.scores, equal_nan=True) is not case.learns

    def test_without_any_answer_it_says_what_it_lacks_or_has_no_score(self, case: Case) -> None:
        found, said = np.array([np.nan]), None
        try:
            found = case.score(KINDS[case.records].nothing)
        except ValueError as error:
            said = str(error)
        assert np.isnan(found).all()
        assert said is None or re.search("not given|shadows", said)


def test_an_attack_says_when_a_record_has_no_score() -> None:
    """In its docstring; the terminal quotes it beside how many records it left out."""
    from raymia.attacks.images.learned import SecMiNns
    from raymia.attacks.loss import Loss

    assert when_no_score(Loss) == "No score without a scored token."
    assert when_no_score(SecMiNns) == (
        "No score where an answer is missing, or with fewer than 10 members or non-members to fit "
        "on."
    )
    said = {name: when_no_score(kind) for name, kind in registry().items()}
    assert all(not text or (text.endswith(".") and "----" not in text) for text in said.values())
    assert sum(map(bool, said.values())) > 25
