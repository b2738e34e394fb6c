"""An attack that was fitted on the labels of the records that judge it: what its AUC is worth.

Cross-fitted, no record is judged by what saw its own label. But each label is in the scores of the
other folds, so that the AUC scatters more than that of scores without labels.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from test_choice_and_tail import run_of

from raymia.metrics.comparison import Question
from raymia.metrics.measuring import measure
from raymia.results.chance import chance_of_auc
from raymia.results.ranking import fitted_on_labels
from raymia.results.result import ReferenceCard
from raymia.results.verdict import reach_verdict
from raymia.scoring.reduction import _compare_kept
from raymia.spec import MetricsSpec

N, FOLDS = 100, 5
IS_MEMBER = np.arange(2 * N) < N


def nearest_mean(own, labels, judged):
    above, below = own[labels].mean(axis=0), own[~labels].mean(axis=0)
    return (judged - (above + below) / 2) @ (above - below)


def kernel(own, labels, judged):
    alike = np.exp(-_distances(judged, own) / (0.3 * own.shape[1]))
    return alike[:, labels].mean(axis=1) - alike[:, ~labels].mean(axis=1)


def neighbors(own, labels, judged):
    nearest = np.argpartition(_distances(judged, own), 7, axis=1)[:, :7]
    return labels[nearest].mean(axis=1)


def _distances(some, others):
    return (some**2).sum(1)[:, None] + (others**2).sum(1) - 2 * some @ others.T


CLASSIFIERS = [(nearest_mean, 1), (nearest_mean, 50), (kernel, 10), (neighbors, 3)]


def cross_fitted(draws, fit, width, shift=0.0):
    """Scores of records whose features tell nothing, unless they are shifted."""
    features = draws.normal(size=(2 * N, width)) + shift * IS_MEMBER[:, None]
    fold = draws.integers(FOLDS, size=2 * N)
    scores = np.empty(2 * N)
    for k in range(FOLDS):
        others = fold != k
        scores[~others] = fit(features[others], IS_MEMBER[others], features[~others])
    return scores


def audit_of(scores, fitted):
    metrics = measure(scores, IS_MEMBER, target="t", attack="network", fitted=fitted)
    run = run_of([metrics], N, N)
    cards = [card.model_copy(update={"learns": fitted}) for card in run.attacks]
    return run.model_copy(update={"attacks": cards})


@pytest.mark.long
@pytest.mark.parametrize(("fit", "width"), CLASSIFIERS)
def test_where_nothing_leaks_it_seldom_looks_as_if_it_did(fit, width):
    draws, audits, found, above = np.random.default_rng(1), 300, 0, 0
    for _ in range(audits):
        run = audit_of(cross_fitted(draws, fit, width), fitted=True)
        found += reach_verdict(run).finding != "no_leak_found"
        above += run.metrics[0].auc.limits.low[0] > 0.5
    assert max(found, above) <= stats.binom.isf(1e-3, audits, 0.05)


@pytest.mark.long
def test_as_any_other_attack_it_would_too_often_and_its_auc_scatters_up_to_twice_as_much():
    draws, audits, found, variances = np.random.default_rng(2), 300, 0, []
    for fit, width in CLASSIFIERS:
        areas = []
        for _ in range(audits):
            scores = cross_fitted(draws, fit, width)
            run = audit_of(scores, fitted=False)
            areas.append(run.metrics[0].auc.value)
            found += fit is kernel and reach_verdict(run).finding != "no_leak_found"
        variances.append(np.var(areas) * 12 * N**2 / (2 * N + 1))
    assert found > stats.binom.isf(1e-3, audits, 0.05)
    assert all(1.2 < variance < 2.5 for variance in variances)


def test_a_leak_that_it_finds_is_found_and_told_by_its_auc():
    run = audit_of(cross_fitted(np.random.default_rng(3), nearest_mean, 5, shift=0.8), fitted=True)
    verdict = reach_verdict(run)
    assert verdict.finding == "leaks_strongly"
    assert "scores a member above a non-member in" in verdict.sentence


def test_a_rate_of_it_is_no_leak():
    """The tests of the tail take records for independent of each other."""
    scores = np.random.default_rng(4).normal(size=2 * N)
    scores[:12] += 9.0
    findings = [reach_verdict(audit_of(scores, fitted)).finding for fitted in (False, True)]
    assert chance_of_auc(audit_of(scores, True).metrics[0].auc.value, N, N) > 1e-3
    assert findings == ["leaks", "no_leak_found"]


def test_its_auc_has_wider_limits_and_epsilon_is_not_bounded_from_one_run():
    scores = np.random.default_rng(5).normal(size=2 * N) + IS_MEMBER
    plain, fitted = (
        measure(scores, IS_MEMBER, target="t", attack="a", randomized=True, fitted=fitted)
        for fitted in (False, True)
    )
    for wide, narrow in ((fitted.auc, plain.auc), (fitted.held_out_auc, plain.held_out_auc)):
        assert wide.value == narrow.value
        assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(1.6, abs=0.1)
    assert fitted.tpr == plain.tpr
    assert {bound.method for bound in plain.epsilon} > {"held_out"}
    assert [bound.method for bound in fitted.epsilon] == ["held_out"]


@pytest.mark.parametrize("other_is_fitted", [True, False])
def test_comparisons_with_it_hold_their_level(other_is_fitted):
    """Two attacks that find nothing, of which one or both are fitted, differ by chance alone."""
    draws, audits, places = np.random.default_rng(6), 400, (("t", "a"), ("t", "b"))
    fitted, found = {"a", "b"} if other_is_fitted else {"a"}, {True: 0, False: 0}
    for _ in range(audits):
        scores = {place: cross_fitted(draws, nearest_mean, 5) for place in places}
        if not other_is_fitted:
            scores["t", "b"] = draws.normal(size=2 * N)
        for known in found:
            judge = SimpleNamespace(
                records=SimpleNamespace(known=np.ones(2 * N, np.bool_), is_member=IS_MEMBER),
                metrics=MetricsSpec(),
                fitted=fitted if known else set(),
            )
            parts = SimpleNamespace(column=lambda *place, scores=scores: scores[place])
            (one,) = _compare_kept((judge, parts), [Question("attacks", *places)])
            found[known] += one.p_value <= 0.05
    most = stats.binom.isf(1e-3, audits, 0.05)
    assert found[True] <= most < found[False]


@pytest.mark.parametrize(
    ("kind", "combines", "is_fitted"),
    [("model", False, True), ("shadow", False, False), ("shadow", True, True)],
)
def test_a_card_of_earlier_runs_that_learned_from_shadows_is_fitted_on_no_label(
    kind, combines, is_fitted
):
    """Cards of networks said that they learn whatever they were fitted on."""
    scores = np.random.default_rng(4).normal(size=2 * N)
    scores[:12] += 9.0
    run = audit_of(scores, fitted=False)
    cards = [c.model_copy(update={"learns": True, "combines": combines}) for c in run.attacks]
    reference = ReferenceCard(target="t", name="s-00", kind=kind, model="m")
    run = run.model_copy(update={"attacks": cards, "references": [reference]})
    assert fitted_on_labels(run) == ({"network"} if is_fitted else set())
    assert reach_verdict(run).finding == ("no_leak_found" if is_fitted else "leaks")


@pytest.mark.parametrize("fitted", [True, False])
def test_a_card_that_says_what_it_is_fitted_on_is_believed_whatever_references_there_are(fitted):
    """An attack from a plug-in may be fitted on labels though there are shadows."""
    run = audit_of(np.random.default_rng(4).normal(size=2 * N), fitted=False)
    said = {"learns": True, "fitted_on_labels": fitted}
    cards = [card.model_copy(update=said) for card in run.attacks]
    shadow = ReferenceCard(target="t", name="s-00", kind="shadow", model="m")
    for references in ([], [shadow]):
        new = run.model_copy(update={"attacks": cards, "references": references})
        assert fitted_on_labels(new) == ({"network"} if fitted else set())
