"""Candidates that are claimed are members, but for the share that was stated."""

import numpy as np
import pytest
from scipy import stats

from raymia.metrics.claims import claim_candidates, conformal_p_values


def claims(candidates, non_members, rates=(0.05, 0.2)):
    return claim_candidates(
        np.asarray(candidates), np.asarray(non_members),
        target="t", attack="a", of="records", rates=rates,
    )  # fmt: skip


def test_p_value_counts_the_non_members_that_score_as_high():
    others = np.array([1.0, 2.0, 2.0, np.nan, 3.0])
    found = conformal_p_values(np.array([4.0, 3.0, 2.0, 0.0, np.nan]), others)
    np.testing.assert_array_equal(found, [1 / 5, 2 / 5, 4 / 5, 1.0, np.nan])


def test_infinite_scores_claim_nobody():
    """They are a fault of the attack: as a rank they would be the best or the worst there is."""
    others = np.array([-np.inf, np.inf, *np.zeros(97)])
    found = conformal_p_values(np.array([np.inf, 1.0, -np.inf]), others)
    np.testing.assert_array_equal(found, [np.nan, 3 / 100, np.nan])
    faulty = claims([np.inf] * 9 + [0.0], np.zeros(99))
    assert (faulty.n_candidates, faulty.n_unscored) == (1, 9)
    assert [claim.claimed for claim in faulty.claims] == [0, 0]


def test_without_non_members_there_is_no_p_value():
    assert np.isnan(conformal_p_values(np.zeros(3), np.array([np.nan]))).all()


def test_claims_are_benjamini_and_hochbergs():
    draws = np.random.default_rng(0)
    candidates = np.concatenate([draws.normal(4, 1, 60), draws.normal(0, 1, 140), [np.nan] * 3])
    others = draws.normal(0, 1, 500)
    found = claims(candidates, others)
    assert (found.n_candidates, found.n_non_members, found.n_unscored) == (200, 500, 3)
    p = np.sort([(1 + np.sum(others >= s)) / 501 for s in candidates[:200]])
    for claim in found.claims:
        within = [k for k in range(1, 201) if p[k - 1] <= claim.rate * k / 200]
        assert claim.claimed == max(within, default=0)
    assert found.claims[0].claimed > 40


def test_too_few_non_members_for_any_claim_are_said_to_be():
    found = claims([9.0] * 10, np.zeros(18), rates=(0.05, 0.2))
    assert [c.fewest for c in found.claims] == [None, 3]  # 10 / (0.2 * 19) = 2.6
    assert [c.claimed for c in found.claims] == [0, 10]
    assert found.claims[0].needed_non_members == 19
    (enough,) = claims([9.0] * 10, np.zeros(19), rates=(0.05,)).claims
    assert (enough.claimed, enough.fewest) == (10, 10)


def test_fewer_than_the_fewest_are_never_claimed():
    others = np.linspace(0, 1, 39)
    for strong in range(11):
        candidates = [9.0] * strong + [-1.0] * (10 - strong)
        (found,) = claims(candidates, others, rates=(0.05,)).claims
        assert found.fewest == 5  # 10 / (0.05 * 40)
        assert found.claimed == (strong if strong >= 5 else 0)


def test_no_candidates_make_no_claims():
    found = claims([], np.zeros(100))
    assert [c.claimed for c in found.claims] == [0, 0]


@pytest.mark.long
@pytest.mark.parametrize("decimals", [9, 0])
def test_false_discoveries_keep_to_the_rate(decimals):
    """2,000 audits of 100 candidates, 30 of them members, against 200 non-members, with and without
    ties. Bates et al. 2023: the rate is at most 0.2 times the share of non-members, 0.14."""
    draws = np.random.default_rng(1)
    false = []
    found = 0
    for _ in range(2_000):
        candidates = (draws.normal(size=100) + 3 * (np.arange(100) < 30)).round(decimals)
        others = draws.normal(size=200).round(decimals)
        (claim,) = claims(candidates, others, rates=(0.2,)).claims
        claimed = np.argsort(-candidates, kind="stable")[: claim.claimed]
        assert claim.claimed == 0 or np.sum(candidates >= candidates[claimed[-1]]) == claim.claimed
        false.append(np.mean(claimed >= 30) if claim.claimed else 0.0)
        found += np.sum(claimed < 30)
    error = np.std(false) / np.sqrt(2_000)
    assert np.mean(false) <= 0.14 + 3 * error
    if decimals == 9:
        assert np.mean(false) >= 0.14 - 3 * error - 0.01, "and spends what it may"
        assert found / 2_000 > 20


def test_p_values_of_non_members_are_uniform():
    draws = np.random.default_rng(2)
    found = [
        conformal_p_values(draws.normal(size=1), draws.normal(size=99))[0] for _ in range(3_000)
    ]
    counts = np.bincount(np.rint(np.array(found) * 100).astype(int) - 1, minlength=100)
    assert stats.chisquare(counts).pvalue > 1e-3
