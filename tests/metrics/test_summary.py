"""What is measured, what is left out, and what is said when nothing can be measured."""

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from raymia.metrics.measuring import measure
from raymia.metrics.summary import AttackMetrics, Estimate, Metrics, NotMeasured


def scores_of(n_members, n_non_members, seed=0):
    draws = np.random.default_rng(seed)
    scores = np.concatenate([draws.normal(1, 1, n_members), draws.normal(0, 1, n_non_members)])
    return scores, np.arange(scores.size) < n_members


def measured(scores, is_member, **settings):
    settings = {"target": "t", "attack": "a", **settings}
    return measure(scores, is_member, **settings)


def test_budget_below_one_non_member_is_not_resolvable():
    result = measured(*scores_of(50, 100))
    ten, one, tenth = result.tpr
    assert ten.resolvable
    assert one.resolvable, "exactly one of 100 non-members is 1 %"
    assert isinstance(one.estimate, Estimate)
    assert not tenth.resolvable
    assert tenth.estimate is None
    assert tenth.needed_non_members == 1000


def test_one_non_member_too_few_is_not_resolvable():
    result = measured(*scores_of(50, 99))
    assert [tpr.resolvable for tpr in result.tpr] == [True, False, False]


def test_records_without_a_score_are_left_out_and_counted():
    scores, is_member = scores_of(40, 30)
    with_gaps = np.concatenate([scores, [np.nan, np.nan, np.nan]])
    labels = np.concatenate([is_member, [True, False, False]])
    result = measured(with_gaps, labels)
    assert (result.n_members, result.n_non_members, result.n_unscored) == (40, 30, 3)
    assert result.auc == measured(scores, is_member).auc


@pytest.mark.parametrize(
    ("n_members", "n_non_members", "reason"),
    [
        (1, 30, "at least 2 members must have a score; there are 1"),
        (30, 0, "at least 2 non-members must have a score; there are 0"),
        (0, 0, "at least 2 members"),
    ],
)
def test_too_few_scored_records_are_said_to_be_too_few(n_members, n_non_members, reason):
    result = measured(*scores_of(n_members, n_non_members))
    assert isinstance(result, NotMeasured)
    assert reason in result.reason


def test_infinite_score_is_a_fault_of_the_attack_and_does_not_stop_the_run():
    scores, is_member = scores_of(5, 5)
    scores[3] = -np.inf
    result = measured(scores, is_member)
    assert isinstance(result, NotMeasured)
    assert result.reason == "1 of 10 scores are infinite"


def test_interval_surrounds_the_value_of_a_strong_attack():
    result = measured(*scores_of(300, 300))
    assert result.auc.low < result.auc.value < result.auc.high
    assert result.confidence == 0.95


def test_wrong_arguments_are_refused():
    scores, is_member = scores_of(5, 5)
    with pytest.raises(ValueError, match="fprs"):
        measured(scores, is_member, fprs=(0.0,))
    with pytest.raises(ValueError, match="is_member"):
        measured(scores, is_member[:-1])
    with pytest.raises(ValueError, match="is_member"):
        measured(scores, is_member.astype(int))


def test_results_survive_json_and_are_immutable():
    either = TypeAdapter(Metrics)
    for result in (measured(*scores_of(20, 20)), measured(*scores_of(1, 20))):
        assert either.validate_json(either.dump_json(result)) == result
        with pytest.raises(ValidationError):
            result.target = "other"


def test_unknown_keys_are_refused():
    result = measured(*scores_of(20, 20)).model_dump()
    with pytest.raises(ValidationError, match="extra"):
        AttackMetrics.model_validate({**result, "accuracy": 1.0})
