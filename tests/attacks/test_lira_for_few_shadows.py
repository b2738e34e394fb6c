"""LiRA with a prior for the variance: its formula, its estimate, and what four shadows tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from raymia.attacks import build
from raymia.attacks.student_ratio import likeliest_prior, log_odds_below
from raymia.evidence.text import ModelEvidence, ShadowEvidence, TextEvidence, TokenEvidence

DEGREES, VARIANCE = 3.0, 0.4
PRIOR = {"prior_degrees": DEGREES, "prior_variance": VARIANCE}


def model(logits):
    """A model under which records of one token have these logits."""
    log_prob = -np.log1p(np.exp(-np.asarray(logits, float))).astype(np.float32)
    count, none = len(log_prob), np.zeros(len(log_prob), np.float32)
    return ModelEvidence(
        TokenEvidence(np.arange(count + 1), none.astype(np.int32), log_prob, none, none, none > 0)
    )


def evidence(target, shadows, is_in):
    texts = [f"text {i}" for i in range(len(target))]
    pairs = zip(shadows, is_in, strict=True)
    return TextEvidence(
        texts, model(target), shadows=[ShadowEvidence(model(one), who) for one, who in pairs]
    )


def score(name, given, **parameters):
    return build(name, parameters, "here").score(given)


# ----------------------------------------------------------------------------- formula


def averaged(function, seen):
    """A function of mean and deviation, averaged over how likely they are after some values."""
    mean = np.linspace(-15, 15, 601)[:, None]
    variance = np.exp(np.linspace(-6, 9, 151))[None, :]
    prior = stats.invgamma.pdf(variance, DEGREES / 2, scale=DEGREES * VARIANCE / 2) * variance
    weight = prior * np.prod([stats.norm.pdf(y, mean, np.sqrt(variance)) for y in seen], axis=0)
    return (weight * function(mean, np.sqrt(variance))).sum() / weight.sum()


def predictive(x, seen):
    """Density of one more value."""
    return averaged(lambda mean, deviation: stats.norm.pdf(x, mean, deviation), seen)


def below(x, seen):
    """Chance that one more value is below another."""
    return averaged(lambda mean, deviation: stats.norm.cdf(x, mean, deviation), seen)


SHADOWS = np.array([[1.1, -0.5], [0.3, -0.9], [-0.4, 0.2], [0.1, 0.6]])
IS_IN = np.array([[True, True], [True, False], [False, True], [False, False]])
TARGET = np.array([0.9, -0.7])


def test_online_is_the_ratio_of_what_the_model_of_the_docs_foretells():
    found = score("lira_t", evidence(TARGET, SHADOWS, IS_IN), **PRIOR)
    expected = [
        math.log(predictive(x, s[i]) / predictive(x, s[~i]))
        for x, s, i in zip(TARGET, SHADOWS.T, IS_IN.T, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_offline_is_the_chance_that_a_model_without_the_record_is_below():
    found = score("lira_t_offline", evidence(TARGET[:1], SHADOWS[:, :1], IS_IN[:, :1]), **PRIOR)
    chance = below(TARGET[0], SHADOWS[~IS_IN[:, 0], 0])
    assert found[0] == pytest.approx(math.log(chance / (1 - chance)), rel=1e-3)


def test_offline_scores_are_finite_where_a_target_is_furthest_from_what_shadows_say():
    prior = {"prior_degrees": 1e4, "prior_variance": 1e-6}
    told, untold = SHADOWS[:, :1] * 1e-3, np.zeros((4, 1), bool)
    far = [score("lira_t_offline", evidence([x], told, untold), **prior)[0] for x in (1, 2, 5, -5)]
    assert np.isfinite(far).all()
    assert far[3] < 0 < far[0] < far[1] < far[2]


@pytest.mark.parametrize("degrees", [1, 4, 250, 10_000])
def test_log_odds_are_exact_and_rise_however_far_a_value_is(degrees):
    mpmath = pytest.importorskip("mpmath")
    away = np.unique([*np.geomspace(0.1, 1e6, 50), *np.linspace(19, 27, 33)])
    found = log_odds_below(np.concatenate([-away[::-1], [0.0], away]), np.full(167, float(degrees)))
    with mpmath.workdps(60):
        nu, half = mpmath.mpf(degrees), mpmath.mpf(1) / 2
        expected = []
        for x in map(mpmath.mpf, away):
            above = mpmath.betainc(nu / 2, half, 0, nu / (nu + x**2), regularized=True) / 2
            expected.append(float(mpmath.log((1 - above) / above)))
    np.testing.assert_allclose(found[84:], expected, rtol=1e-10)
    assert (found[:83] == -found[:83:-1]).all()
    assert found[83] == 0
    assert (np.diff(found) > 0).all()


def test_one_shadow_of_a_kind_is_enough_and_none_is_not():
    is_in = np.array([[True, False], [False, False]])
    online = score("lira_t", evidence(TARGET, SHADOWS[:2], is_in), **PRIOR)
    offline = score("lira_t_offline", evidence(TARGET, SHADOWS[:2], is_in))
    assert np.isfinite(online).tolist() == [True, False]
    assert np.isfinite(offline).all()


@pytest.mark.parametrize("parameters", [{"prior_degrees": 3.0}, {**PRIOR, "prior_variance": 0.0}])
def test_half_a_prior_and_an_impossible_one_are_refused(parameters):
    with pytest.raises(Exception, match=r"belong together|above 0"):
        build("lira_t", parameters, "here")


# ---------------------------------------------------------------------------- estimate


def sums_of_squares(degrees, variance, free, seed=0):
    draws = np.random.default_rng(seed)
    own = degrees * variance / draws.chisquare(degrees, len(free))
    return own * draws.chisquare(free)


def test_the_prior_is_the_one_that_variances_were_drawn_from():
    free = np.repeat([1, 3, 7], 4_000)
    found = likeliest_prior(sums_of_squares(4.0, 0.7, free), free)
    assert found.degrees == pytest.approx(4.0, rel=0.1)
    assert found.variance == pytest.approx(0.7, rel=0.05)


def test_no_other_prior_makes_the_variances_likelier():
    free = np.repeat([1, 2], 60)
    squares = sums_of_squares(5.0, 2.0, free)

    def likelihood(degrees, variance):
        return stats.f.logpdf(squares / free, free, degrees, scale=variance).sum()

    found = likeliest_prior(squares, free)
    best = likelihood(found.degrees, found.variance)
    for by in (0.8, 1.25):
        assert best > likelihood(found.degrees * by, found.variance)
        assert best > likelihood(found.degrees, found.variance * by)


def test_where_all_records_have_one_variance_the_prior_outweighs_any_number_of_shadows():
    free = np.full(3_000, 3)
    found = likeliest_prior(1.5 * np.random.default_rng(1).chisquare(free), free)
    assert found.degrees > 100
    assert found.variance == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("squares", [[0.0] * 4, [0.0, 0.0, 0.0, 1e-30]])
def test_shadows_that_agree_to_the_last_bit_give_finite_scores(squares):
    found = likeliest_prior(np.array(squares), np.array([1, 1, 1, 2]))
    assert 0 < found.variance < 1e-4
    same = np.zeros((4, 2)) + 0.3
    assert np.isfinite(score("lira_t", evidence(TARGET, same, IS_IN))).all()


# -------------------------------------------------------------- what four shadows tell


def audit(degrees, seed, count=3_000):
    """Records whose variance over trainings is drawn from a known distribution, four shadows of
    which each record is in two, and a target of which nothing was fitted."""
    draws = np.random.default_rng(seed)
    variance = degrees / draws.chisquare(degrees, count) if degrees else np.ones(count)
    mean, gap = draws.normal(-2, 1, count), np.exp(draws.normal(0, 0.5, count))
    is_in = np.argsort(draws.random((4, count)), axis=0) < 2
    is_member = draws.random(count) < 0.5
    trained = np.vstack([is_member, is_in])
    logits = mean + gap * trained + np.sqrt(variance) * draws.normal(size=(5, count))
    return is_member, evidence(logits[0], logits[1:], is_in)


def told(degrees, name, **parameters):
    """AUC and TPR at 1 % FPR, averaged over audits."""
    found = []
    for seed in range(4):
        is_member, given = audit(degrees, seed)
        scores = score(name, given, **parameters)
        fpr, tpr, _ = roc_curve(is_member, scores)
        found.append((roc_auc_score(is_member, scores), tpr[fpr <= 0.01].max()))
    return np.mean(found, axis=0)


@pytest.mark.parametrize("kind", ["", "_offline"])
def test_with_the_prior_four_shadows_tell_more_where_records_differ_in_variance(kind):
    auc, rate = told(3, f"lira_t{kind}")
    for fixed in (True, False):
        without = told(3, f"lira{kind}", fixed_variance=fixed)
        assert auc > without[0] + 0.002, (fixed, auc, without)
        assert rate > without[1] * 1.1, (fixed, rate, without)


@pytest.mark.parametrize("kind", ["", "_offline"])
def test_and_lose_nothing_where_all_have_one(kind):
    auc, rate = told(None, f"lira_t{kind}")
    without = told(None, f"lira{kind}")
    assert auc > without[0] - 0.002
    assert rate > without[1] * 0.9
