"""Copies on one side make no leak, and hide none: one record of each cluster counts."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import yaml
from scipy import stats

from raymia.modalities.images.modality import Images
from raymia.modalities.texts.modality import Texts
from raymia.results.chance import Chance
from raymia.results.disguise import Disguise
from raymia.results.gate import decide_again
from raymia.results.redaction import redact
from raymia.results.result import RecordCounts, RunResult
from raymia.results.verdict import reach_verdict
from raymia.scoring.blind import looked_at
from raymia.scoring.distinct import distinct_records, measure_distinct
from raymia.scoring.judge import Judge
from raymia.scoring.workers import Here
from raymia.shift.copies import copies_within
from raymia.shift.result import ShiftCheck
from raymia.spec import MetricsSpec
from raymia.spec.shift import ShiftSpec


@dataclass
class MadeUp:
    """An audit of made-up scores; the copies among its records are found where they are looked for.

    Attributes
    ----------
    text_of : [records], records of one text and side are copies.
    group_of : [records], the group of each; none has one without it.
    """

    members: int
    text_of: np.ndarray
    sample: int = 20_000
    group_of: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.text_of)
        table = pa.table(
            {
                "record_id": [f"r{n}" for n in range(count)],
                "is_member": np.arange(count) < self.members,
                "group": pa.nulls(count, pa.string())
                if self.group_of is None
                else [f"g{group}" for group in self.group_of],
            }
        )
        self.inputs = SimpleNamespace(
            records=SimpleNamespace(table=table),
            spec=SimpleNamespace(
                metrics=MetricsSpec(), seed=0, shift=ShiftSpec(sample=self.sample)
            ),
            attacks_on=lambda _: [SimpleNamespace(label=label) for label in self.scores],
            fitted_on_labels=frozenset(),
            modality=Texts,
        )
        self.judge = Judge.of(self.inputs)
        self.is_member, self.looked = self.judge.records.is_member, looked_at(self.inputs)
        sides = [np.flatnonzero(self.looked & (self.is_member == kind)) for kind in (True, False)]
        found = [self._clusters(rows) for rows in sides]
        self.clusters = {f"r{n}": f"r{c[0]}" for side in found for c in side for n in c}
        ids = [f"r{n}" for n in range(count)]
        groups = ids if self.group_of is None else self.group_of.tolist()
        self.check = ShiftCheck(
            state="no_shift_found", error_rate=0.05,
            n_members=len(sides[0]), n_non_members=len(sides[1]),
            left_out=int(count - self.looked.sum()),
            copies=copies_within(found, [ids, ids], [groups, groups]),
        )  # fmt: skip

    def _clusters(self, rows):
        texts = self.text_of[rows]
        several = np.flatnonzero(np.bincount(texts) > 1)
        return [rows[texts == text].tolist() for text in several]

    def run(self, scores, *, of_all=True):
        """The audit's result; ``of_all``: whether all records are measured, and not these alone
        that count."""
        self.scores = scores
        everything = np.ones(len(self.text_of), np.bool_)
        parts = SimpleNamespace(column=lambda _, attack: scores[attack])
        distinct = measure_distinct(self.inputs, ["t"], parts, self.clusters, Here())
        return RunResult(
            name="n", created="", versions={}, seed=0, code_version="",
            metrics=[
                self.judge.measure(own, among=everything, target="t", attack=attack)
                for attack, own in scores.items()
            ]
            if of_all
            else distinct,
            distinct_metrics=distinct,
            group_metrics=[
                self.judge.judge(own, target="t", attack=attack).group_metrics
                for attack, own in scores.items()
            ]
            if self.judge.groups is not None
            else [],
            split_by_group=self.judge.groups is not None and self.judge.groups.hold_all,
            records=RecordCounts(
                members=self.members, non_members=len(everything) - self.members, candidates=0,
                set_aside=0,
            ),
            shift=self.check, complete=True, audit_yaml="{}", seconds=0.0,
        )  # fmt: skip


def large_cluster(side, sample=20_000):
    """A thousand of each kind, of which fifty of one are copies of one text."""
    text_of = np.arange(2_000)
    text_of[np.arange(50) + 1_000 * (side == "non-members")] = 1_000 * (side == "non-members")
    return MadeUp(1_000, text_of, sample)


def as_single(run):
    """The run, had nobody looked for copies."""
    return run.model_copy(update={"shift": None, "distinct_metrics": []})


def finds(run):
    chance = Chance.of(run)
    return any(chance.shown(attack, 0.01) for attack in run.metrics)


@pytest.mark.long
@pytest.mark.parametrize("side", ["members", "non-members"])
def test_attacks_that_guess_find_no_leak_in_one_large_cluster(side):
    """Eight attacks, whose scores of copies hardly differ."""
    audit, draws, audits = large_cluster(side), np.random.default_rng(3), 30
    found, singly = 0, 0
    for _ in range(audits):
        scores = {
            f"a{n}": draws.normal(size=2_000)[audit.text_of] + 0.001 * draws.normal(size=2_000)
            for n in range(8)
        }
        run = audit.run(scores, of_all=side == "members")
        found += finds(run)
        singly += finds(as_single(run))
    assert found <= stats.binom.isf(1e-3, audits, 0.05)
    if side == "members":
        assert singly >= 8, "as single records they are called a leak"


@pytest.mark.parametrize("sample", [20_000, 800])
def test_a_cluster_above_all_others_is_one_record_above_all_others(sample):
    """Which has a chance of one half, and at 1 % at least one of a hundred; not of one in 10^10."""
    draws, audit = np.random.default_rng(4), large_cluster("members", sample)
    scores = {"a": draws.normal(size=2_000)}
    scores["a"][:50] = 9 + 0.001 * draws.normal(size=50)
    run = audit.run(scores)
    tests = Chance.of(run).tests(run.metrics[0])
    assert {test.of for test in tests} == {"area", "rate", "top"}
    assert min(test.p_value for test in tests) > 0.01
    assert not finds(run)
    assert finds(as_single(run))


@pytest.mark.long
def test_copies_whose_scores_differ_do_not_make_their_side_look_narrower():
    """The means of such clusters would scatter less than single members do, and members stand out
    in the tail."""
    text_of = np.concatenate([np.arange(300), 300 + np.repeat(np.arange(300), 5)])
    audit, draws, audits = MadeUp(300, text_of), np.random.default_rng(5), 60
    found = sum(finds(audit.run({"a": draws.normal(size=1_800)})) for _ in range(audits))
    assert found <= stats.binom.isf(1e-3, audits, 0.05)


def test_a_leak_of_single_records_is_found_beside_a_large_cluster():
    draws, audit = np.random.default_rng(6), large_cluster("members")
    scores = {"a": draws.normal(size=2_000)[audit.text_of]}
    scores["a"][60:90] = 9 + draws.random(30)
    verdict = reach_verdict(audit.run(scores))
    assert verdict.finding in ("leaks", "leaks_strongly")
    limits = " ".join(verdict.limits)
    assert "the tests against chance count the first of each cluster alone" in limits
    assert "Only a sample" not in limits
    few = {"a": draws.normal(size=2_000)[audit.text_of]}
    few["a"][60:76] = 9 + draws.random(16)
    assert (
        "scores 16 of 951 distinct members above every one of 1,000 distinct non-members"
        in reach_verdict(audit.run(few)).sentence
    )


@pytest.mark.long
def test_records_that_are_there_ten_times_each_count_once():
    """Forty texts of each kind, of an attack that guesses."""
    audit = MadeUp(400, np.arange(800) // 10)
    draws, audits, found, singly = np.random.default_rng(0), 60, 0, 0
    for _ in range(audits):
        scores = {"a": np.repeat(draws.normal(size=80), 10) + 0.01 * draws.normal(size=800)}
        run = audit.run(scores)
        found += finds(run)
        singly += finds(as_single(run))
        assert (run.metrics[0].n_members, run.metrics[0].n_non_members) == (400, 400)
    (unit,) = run.distinct_metrics
    assert (unit.n_members, unit.n_non_members) == (40, 40)
    assert found <= stats.binom.isf(1e-3, audits, 0.05)
    assert singly >= 20, "as single records they are called a leak"


def test_where_a_sample_was_searched_and_has_copies_its_distinct_records_count():
    audit = MadeUp(4_000, np.arange(8_000) // 10, sample=400)
    kept = distinct_records(audit.inputs, audit.clusters)
    assert not (kept & ~audit.looked).any()
    sampled = audit.text_of[audit.looked]
    assert np.array_equal(np.sort(audit.text_of[kept]), np.unique(sampled))
    run = audit.run({"a": np.random.default_rng(1).normal(size=8_000)})
    assert run.distinct_metrics[0].n_members == kept[:4_000].sum() < 400
    limits = " ".join(reach_verdict(run).limits)
    assert "Only a sample of 800 members and non-members was searched for copies" in limits


def test_all_records_count_of_a_side_on_which_a_sample_has_no_copies():
    text_of = np.arange(8_000)
    text_of[:4_000] //= 10
    audit = MadeUp(4_000, text_of, sample=400)
    kept = distinct_records(audit.inputs, audit.clusters)
    assert kept[4_000:].all()
    assert 0 < kept[:4_000].sum() < 400


def test_of_a_far_larger_side_a_larger_sample_counts_more():
    """Three hundred members, and one pair of copies among many non-members."""
    text_of = np.arange(6_300)
    text_of[301] = 300
    small, large = (MadeUp(300, text_of, sample) for sample in (4_000, 20_000))
    assert distinct_records(large.inputs, large.clusters).sum() == 300 + 5_999
    small.clusters = large.clusters
    assert 3_999 <= distinct_records(small.inputs, small.clusters)[300:].sum() <= 4_000


@pytest.mark.long
def test_a_large_cluster_of_which_a_sample_has_a_part_makes_no_leak():
    """Two hundred and fifty of 5,000 members, of which a tenth was searched; eight attacks."""
    text_of = np.arange(10_000)
    text_of[:250] = 0
    audit = MadeUp(5_000, text_of, sample=500)
    draws, audits, found = np.random.default_rng(7), 40, 0
    for _ in range(audits):
        scores = {f"a{n}": draws.normal(size=10_000)[text_of] for n in range(8)}
        found += finds(audit.run(scores, of_all=False))
    assert found <= stats.binom.isf(1e-3, audits, 0.05)


def test_without_copies_all_records_count_and_nothing_is_measured_twice():
    audit = MadeUp(50, np.arange(100))
    run = audit.run({"a": np.random.default_rng(2).normal(size=100)})
    assert run.distinct_metrics == []
    assert Chance.of(run).unit(run.metrics[0]) is run.metrics[0]


def test_a_run_from_before_distinct_records_were_measured_is_not_judged_by_its_copies():
    audit, draws = large_cluster("members"), np.random.default_rng(8)
    scores = {"a": draws.normal(size=2_000)}
    scores["a"][:50] = 9.0
    content = audit.run(scores).model_dump(mode="json")
    del content["distinct_metrics"]
    content["shift"]["copies"] |= {"share_of_members": 0.29, "share_of_non_members": 1.0}
    verdict = reach_verdict(RunResult.model_validate(content))
    assert verdict.finding == "not_measurable"
    assert "an earlier version did not measure one of each alone" in verdict.sentence
    assert not any("the tests against chance count" in limit for limit in verdict.limits)


def test_a_redacted_run_is_judged_alike():
    draws, audit = np.random.default_rng(9), large_cluster("members")
    scores = {"a": draws.normal(size=2_000)[audit.text_of]}
    scores["a"][60:90] = 9 + draws.random(30)
    run = audit.run(scores)
    redacted = redact(run, Disguise.of_audit(b"secret", yaml.safe_load(run.audit_yaml)))
    assert redacted.distinct_metrics == run.distinct_metrics
    assert reach_verdict(redacted).finding == reach_verdict(run).finding


def test_what_is_told_of_a_leak_is_of_the_distinct_records_that_show_it():
    """Six hundred members are copies of one text with a low score, and the other 400 leak."""
    text_of = np.arange(2_000)
    text_of[:600] = 0
    audit, draws = MadeUp(1_000, text_of), np.random.default_rng(11)
    scores = {"a": draws.normal(size=2_000)}
    scores["a"][600:1_000] += 0.62
    scores["a"][:600] = -2.5 + 0.001 * draws.normal(size=600)
    run = audit.run(scores)
    (of_all,), (unit,) = run.metrics, run.distinct_metrics
    assert of_all.auc.high < 0.4
    assert unit.auc.low > 0.6
    verdict = reach_verdict(run)
    assert verdict.finding == "leaks"
    told = unit.held_out_auc
    assert "distinct members" in verdict.sentence
    assert f"{of_all.held_out_auc.value:.3f}" not in verdict.sentence
    assert (
        f"AUC {told.value:.3f} [{told.low:.3f}, {told.high:.3f}] on distinct records"
        in verdict.sentence
    )
    assert "below" not in verdict.sentence
    assert not any("swapped" in limit for limit in verdict.limits)


@pytest.mark.parametrize("modality", [Texts, Images])
def test_of_a_far_larger_side_more_is_searched_than_guessers_see(modality):
    is_member = np.arange(2_600) < 100
    inputs = SimpleNamespace(
        records=SimpleNamespace(table=pa.table({"is_member": is_member})), modality=modality,
        spec=SimpleNamespace(seed=0, shift=ShiftSpec(sample=5_000)),
    )  # fmt: skip
    looked = looked_at(inputs)
    assert looked[is_member].all()
    assert looked[~is_member].sum() == 2_500


def shared_text(per_group, sample=20_000):
    """Three hundred groups of each kind, where 50 groups of members begin with one text."""
    group_of = np.repeat(np.arange(600), per_group)
    text_of = np.arange(600 * per_group)
    text_of[: 50 * per_group : per_group] = 0
    return MadeUp(300 * per_group, text_of, sample, group_of)


def with_all_copies(run):
    """The run, had nobody looked for copies over groups."""
    return run.model_copy(update={"shift": None, "distinct_metrics": []})


@pytest.mark.parametrize("per_group", [1, 2])
def test_copies_over_groups_make_no_leak(per_group):
    """Groups of one record each, or users who all hold one text; eight attacks that guess."""
    audit, draws, audits = shared_text(per_group), np.random.default_rng(12), 20
    found, counted = 0, 0
    for _ in range(audits):
        scores = {f"a{n}": draws.normal(size=600 * per_group)[audit.text_of] for n in range(8)}
        run = audit.run(scores)
        assert run.split_by_group
        found += finds(run)
        counted += finds(with_all_copies(run))
    assert found <= stats.binom.isf(1e-3, audits, 0.05)
    if per_group == 1:
        assert counted >= 10, "as groups of their own they are called a leak"
    unit, whole = run.distinct_metrics[0], run.group_metrics[0]
    assert (whole.n_members, whole.n_non_members) == (300, 300)
    # Of a user who holds another text as well, that one counts.
    assert (unit.n_members, unit.n_unscored) == (251 if per_group == 1 else 300, 0)
    assert unit.records_per_group == 1


def test_a_cluster_counts_in_its_first_group_and_within_one_group_as_it_is():
    text_of = np.array([0, 0, 1, 0, 2, 3, 4, 5, 5, 6, 7, 8])
    group_of = np.array([0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 6, 7])
    audit = MadeUp(6, text_of, group_of=group_of)
    kept = distinct_records(audit.inputs, audit.clusters, by_group=True)
    assert np.flatnonzero(~kept).tolist() == [3]
    assert (audit.check.copies.groups, audit.check.copies.across_groups) == (2, 1)
    singly = distinct_records(audit.inputs, audit.clusters)
    assert np.flatnonzero(~singly).tolist() == [1, 3, 8]


def test_a_record_without_a_group_shares_no_copies_with_a_group():
    ids = ["a", "b", "c", "d"]
    groups = ["group g", "b", "group h", "group h"]
    found = [
        copies_within([[cluster], []], [ids, []], [groups, []]) for cluster in ([0, 1], [0, 2])
    ]
    assert [one.across_groups for one in found] == [0, 1]


def test_copies_within_groups_alone_leave_the_groups_as_they_are():
    audit = MadeUp(100, np.arange(200) // 2, group_of=np.arange(200) // 2)
    run = audit.run({"a": np.random.default_rng(13).normal(size=200)})
    assert run.distinct_metrics == []
    assert Chance.of(run).unit(run.metrics[0]) is run.group_metrics[0]
    assert not any("nearly copy" in limit for limit in reach_verdict(run).limits)


def test_of_groups_that_share_copies_in_a_sample_the_searched_records_count():
    audit = shared_text(2, sample=400)
    kept = distinct_records(audit.inputs, audit.clusters, by_group=True)
    assert not (kept[:600] & ~audit.looked[:600]).any()
    assert kept[600:].all()
    run = audit.run({"a": np.random.default_rng(14).normal(size=1_200)})
    unit = run.distinct_metrics[0]
    assert unit.n_members == np.unique(audit.group_of[:600][kept[:600]]).size
    assert "Only a sample" in " ".join(reach_verdict(run).limits)


def test_the_verdict_and_the_gate_say_how_groups_that_share_copies_count():
    draws, audit = np.random.default_rng(15), shared_text(1)
    scores = {"a": draws.normal(size=600)}
    scores["a"][:50] = 9 + 0.001 * draws.normal(size=50)
    run = audit.run(scores)
    verdict = reach_verdict(run)
    assert verdict.finding == "no_leak_found"
    said = " ".join(verdict.limits)
    assert "in 1 cluster, 1 of them over several groups" in said
    assert "the tests against chance count a cluster in its first group alone" in said
    (split,) = decide_again(run, ["any.auc > 0.52"])
    assert split.status == "undecided"
    (split,) = decide_again(run, ["any.auc > 0.52 by group"])
    assert split.status == "undecided"
    mixed = run.model_copy(update={"split_by_group": False})
    (of_groups,) = decide_again(mixed, ["any.auc > 0.52 by group"])
    assert of_groups.status == "not_evaluated"
    assert "records of some groups nearly copy records of others" in of_groups.reason
