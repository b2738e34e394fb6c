"""Groups of members and of non-members may be of unlike size: their means scatter alike."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from raymia.results.chance import Chance
from raymia.results.gate import decide_again
from raymia.results.result import RecordCounts, RunResult
from raymia.results.verdict import reach_verdict
from raymia.results.wording import score_of_groups
from raymia.scoring.judge import Judge
from raymia.spec import MetricsSpec

MEMBER, OTHER, CANDIDATE = True, False, None


def judge_of(*sides):
    """Groups of records: of each side the membership, and the sizes of its groups."""
    membership, names = [], []
    for number, (kind, sizes) in enumerate(sides):
        for group, size in enumerate(sizes):
            membership += [kind] * size
            names += [f"{number} {group}"] * size
    table = pa.table(
        {
            "record_id": [f"r{n}" for n in range(len(names))],
            "is_member": pa.array(membership, pa.bool_()),
            "group": names,
        }
    )
    return Judge.of(
        SimpleNamespace(
            records=SimpleNamespace(table=table),
            spec=SimpleNamespace(metrics=MetricsSpec(), seed=0),
            fitted_on_labels=frozenset(),
        )
    )


def judged(judge, values):
    return judge.judge(np.asarray(values, float), target="t", attack="a")


def run_of(found, **changes):
    fields = {
        "name": "n", "created": "", "versions": {}, "seed": 0, "code_version": "",
        "records": RecordCounts(members=1, non_members=1, candidates=0, set_aside=0),
        "metrics": [found.metrics], "group_metrics": [found.group_metrics], "split_by_group": True,
        "complete": True, "audit_yaml": "{}", "seconds": 0.0,
    }  # fmt: skip
    return RunResult(**{**fields, **changes})


def guesses(judge, draws, within):
    """Scores of an attack that guesses, which correlate within a group."""
    of = judge.groups.of_record
    shared, own = draws.normal(size=of.max() + 1)[of], draws.normal(size=of.size)
    return np.sqrt(within) * shared + np.sqrt(1 - within) * own


@pytest.mark.parametrize("within", [0.0, 0.5])
@pytest.mark.parametrize("sizes", [(1, 5), (2, 10), (5, 1)])
def test_an_attack_that_guesses_finds_no_leak_in_groups_of_unlike_size(sizes, within):
    judge = judge_of(*((kind, [s] * 300) for kind, s in zip((MEMBER, OTHER), sizes, strict=True)))
    draws, audits, found, failed = np.random.default_rng(8), 30, 0, 0
    for _ in range(audits):
        run = run_of(judged(judge, guesses(judge, draws, within)))
        assert run.group_metrics[0].records_per_group == min(sizes)
        chance = Chance.of(run)
        found += bool(chance.shown(run.metrics[0], 0.01))
        (outcome,) = decide_again(run, ["any.tpr@1%fpr > 0.01"])
        failed += outcome.status == "failed"
    assert found <= stats.binom.isf(1e-3, audits, 0.05)
    assert failed <= stats.binom.isf(1e-3, audits, 0.05)


def test_no_candidate_is_claimed_because_its_group_is_small():
    judge = judge_of((OTHER, [20] * 200), (CANDIDATE, [1] * 200))
    draws, audits, claimed = np.random.default_rng(9), 30, 0
    for _ in range(audits):
        _, of_groups = judged(judge, guesses(judge, draws, 0.0)).claims
        assert of_groups.records_per_group == 1
        claimed += any(claim.claimed for claim in of_groups.claims if claim.rate <= 0.05)
    assert claimed <= stats.binom.isf(1e-3, audits, 0.05)


def test_a_group_is_scored_by_its_first_records_as_many_as_every_group_has():
    judge = judge_of((MEMBER, [3, 2]), (OTHER, [4, 2]), (CANDIDATE, [1, 2]))
    labels = judge.groups.labels
    values = [np.nan, 1, 3, 5, 7, 0, 2, 50, 50, 4, np.nan, 8, np.nan, np.nan]
    scores, each = judge.groups.scores(np.array(values), labels.known, labels.is_member)
    assert each == 1
    assert scores[:4].tolist() == [1, 5, 0, 4]
    assert np.isnan(scores[4:]).all()
    values[10] = 6  # of the second group of non-members, which had one with a score
    scores, each = judge.groups.scores(np.array(values), labels.known, labels.is_member)
    assert (each, scores[:4].tolist()) == (2, [2, 6, 1, 5])
    of_claims, each = judge.groups.scores(np.array(values), ~labels.is_member, labels.known)
    assert (each, of_claims[2:5].tolist()) == (1, [0, 4, 8])
    assert np.isnan(of_claims[5]), "without a scored record it is not compared"


def test_a_few_small_groups_have_no_score_and_leave_the_others_theirs():
    judge = judge_of((MEMBER, [50] * 30), (OTHER, [1, 2, 49] + [50] * 27))
    draws = np.random.default_rng(3)
    values = draws.normal(size=judge.groups.of_record.size) + 0.3 * judge.records.is_member
    found = judged(judge, values).group_metrics
    assert (found.records_per_group, found.n_unscored) == (50, 3)
    assert found.auc.value > 0.9
    judge = judge_of((MEMBER, [50] * 30), (OTHER, [1] * 4 + [50] * 26))
    found = judged(judge, values[: judge.groups.of_record.size]).group_metrics
    assert (found.records_per_group, found.n_unscored) == (1, 0)


def test_without_a_score_no_group_has_one():
    judge = judge_of((MEMBER, [2, 2]), (OTHER, [2, 2]))
    found = judged(judge, [np.nan] * 8)
    assert found.group_metrics.kind == "not_measured"
    assert score_of_groups([found.group_metrics]).endswith("the mean of its records' scores.")


def test_the_report_says_of_how_many_records_a_group_is_the_mean():
    judge = judge_of((MEMBER, [3] * 30), (OTHER, [4] * 30))
    found = judged(judge, np.arange(210.0)).group_metrics
    said = score_of_groups([found])
    assert "the mean of the first 3 of its records with one: as many as nine of ten" in said
    one = found.model_copy(update={"records_per_group": 1})
    assert "that of the first of its records with one" in score_of_groups([one])
    assert "the first 1 to 3 of its records with one, by the attack" in score_of_groups(
        [one, found]
    )


def test_means_of_all_records_of_an_earlier_version_decide_nothing():
    judge = judge_of((MEMBER, [1] * 300), (OTHER, [5] * 300))
    run = run_of(judged(judge, np.arange(1_800.0)[::-1]))
    assert reach_verdict(run).finding == "leaks_strongly"
    old = run.group_metrics[0].model_copy(update={"records_per_group": None})
    before = run.model_copy(update={"group_metrics": [old]})
    verdict = reach_verdict(before)
    assert verdict.finding == "not_measurable"
    assert "run the audit again" in verdict.sentence
    for condition in ("any.auc > 0.6", "any.auc > 0.6 by group"):
        (outcome,) = decide_again(before, [condition])
        assert outcome.status == "not_evaluated"
        assert "scored a group by the mean of all its records" in outcome.reason
