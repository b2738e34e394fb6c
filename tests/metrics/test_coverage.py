"""Over made-up audits, the intervals hold the truth as often as they claim.

Scores are normal, members' with a higher mean, so every true rate is known. Three standard errors
of a share of 0.95 in 2,000 are 0.015: an interval that covers within 0.95 +- 0.005 stays between
0.93 and 0.97 all but surely.
"""

import numpy as np
import pytest
from scipy import stats

from raymia.metrics.delong import auc_spread_of
from raymia.metrics.held_out import Halves, accuracy_held_out, rates_held_out
from raymia.metrics.intervals import auc_interval
from raymia.metrics.limits import tpr_limits
from raymia.metrics.roc import auc, roc_curve

AUDITS = 2_000


def audits(n_members, n_non_members, shift, seed, count=AUDITS):
    draws = np.random.default_rng(seed)
    is_member = np.arange(n_members + n_non_members) < n_members
    for _ in range(count):
        yield draws.normal(size=is_member.size) + shift * is_member, is_member


def covered(intervals):
    return np.mean([low <= truth <= high for low, truth, high in intervals])


AUCS = [(100, 100, 0.9), (1_000, 20, 0.99), (20, 1_000, 0.99), (200, 50, 0.6)]


@pytest.mark.long
@pytest.mark.parametrize(("n_members", "n_non_members", "truth"), AUCS)
def test_auc_also_of_unbalanced_sets_near_1(n_members, n_non_members, truth):
    """DeLong's alone held 0.99 in 80 % of audits with 1,000 : 20."""
    shift = np.sqrt(2) * stats.norm.ppf(truth)

    def interval(scores, is_member):
        curve = roc_curve(scores, is_member)
        low, high = auc_interval(auc(curve), auc_spread_of(curve), 0.95)
        return low, truth, high

    made = audits(n_members, n_non_members, shift, seed=1, count=400)
    assert covered(interval(*audit) for audit in made) >= 0.92


@pytest.mark.long
def test_tpr_of_a_held_out_threshold_and_what_it_costs_in_false_positives():
    shift, rates, false, accuracies = 1.0, [], [], []
    halves_of = np.random.default_rng(2)
    for scores, is_member in audits(1_000, 1_000, shift, seed=3):
        halves = Halves.split(scores, is_member, halves_of.random(2_000) < 0.5)
        found = rates_held_out(halves, 0.01, priors=(), confidence=0.95)
        true_tpr, true_fpr = stats.norm.sf(np.array([found.threshold - shift, found.threshold]))
        rates.append((found.tpr.low, true_tpr, found.tpr.high))
        false.append((found.fpr.low, true_fpr, found.fpr.high))
        judged = accuracy_held_out(halves, confidence=0.95)
        right = stats.norm.sf(judged.threshold - shift) + stats.norm.cdf(judged.threshold)
        accuracies.append((judged.low, right / 2, judged.high))
    assert 0.93 <= covered(rates) <= 0.97
    assert 0.93 <= covered(accuracies) <= 0.97
    # 1 % of 500 is 5: with so few hits Clopper and Pearson's interval covers more than it must.
    assert 0.95 <= covered(false) <= 0.99


RATES = [(20, 1_000, 0.01, 0.01), (20, 1_000, 0.01, 0.05), (400, 400, 0.01, 0.3),
         (1_000, 100, 0.01, 0.9), (200, 1_000, 0.1, 0.5)]  # fmt: skip


@pytest.mark.parametrize(("n_members", "n_non_members", "max_fpr", "truth"), RATES)
def test_tpr_on_all_records_also_where_records_are_few(n_members, n_non_members, max_fpr, truth):
    """Percentiles of a bootstrap held 1 % in 31 % of audits, and 5 % in 79 %, with 20 : 1,000."""
    shift = stats.norm.isf(max_fpr) - stats.norm.isf(truth)

    def interval(scores, is_member):
        low, high = tpr_limits(roc_curve(scores, is_member), max_fpr, [0.025])[:, 0]
        return low, truth, high

    made = audits(n_members, n_non_members, shift, seed=4, count=300)
    assert covered(interval(*audit) for audit in made) >= 0.94
