"""What an audit is told of its scores beyond each attack by itself: claims, comparisons, bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from small_inputs import audit, write_rows
from tiny_models import PARAPHRASER, passages

from raymia.attacks import NamedAttack
from raymia.attacks.images.learned import SecMiNns
from raymia.attacks.learned import LearnedCombination
from raymia.evidence.store import EvidenceStore
from raymia.metrics.comparison import Question
from raymia.metrics.measuring import measure
from raymia.metrics.summary import AttackMetrics, NotMeasured
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.run.outcome import Run, _attack_cards, sum_up
from raymia.scoring.comparisons import questions_of
from raymia.scoring.evidence import Known
from raymia.scoring.judge import Judge
from raymia.scoring.parts import score_parts
from raymia.scoring.reduction import _units_and_halves, infer_datasets, reduce_audit, score_tables
from raymia.scoring.workers import Here

GROUPS = {"members": 2, "non_members": 20, "candidates": 4}


def inputs_of(folder, model, **changes):
    """Groups of two records of one kind: 2 of members, 20 of non-members, 4 of candidates."""
    texts = iter(passages(2 * sum(GROUPS.values())))
    records = {
        kind: write_rows(
            folder / f"{kind}.jsonl",
            [{"text": next(texts), "doc": f"{kind} {i // 2}"} for i in range(2 * count)],
        )
        for kind, count in GROUPS.items()
    }
    records["group_column"] = "doc"
    spec = audit(folder / "a", model, PARAPHRASER, records=records, references=None,
                 neighbors=None, attacks=["loss", "zlib"], **changes)  # fmt: skip
    return resolve_inputs(spec)


@pytest.fixture
def inputs(tmp_path, tiny_gpt2):
    return inputs_of(tmp_path, tiny_gpt2)


def made_scores(inputs, seed=0):
    """Candidates of the first two groups score like members, the others below all; the last record
    has no score."""
    table = inputs.records.table
    shifts = {"members": 9.0, "non_members": 0.0, "candidates": -9.0}
    groups = [group.split() for group in table["group"].to_pylist()]
    shift = [9.0 if g == "candidates" and int(n) < 2 else shifts[g] for g, n in groups]
    scores = np.random.default_rng(seed).normal(size=table.num_rows) + shift
    scores[-1] = np.nan
    return scores


def test_records_and_groups_of_candidates_are_claimed(inputs):
    judge = Judge.of(inputs)
    assert judge.groups.hold_all
    records, groups = judge.judge(made_scores(inputs), target="one", attack="a").claims
    assert (records.of, records.n_candidates, records.n_non_members) == ("records", 7, 40)
    assert records.n_unscored == 1
    assert (groups.of, groups.n_candidates, groups.n_non_members) == ("groups", 4, 20)
    # Four p-values of 1/41, and 7/41 / 4 is within 5 %; two of 1/21, and 4/21 / 2 is not.
    assert [claim.claimed for claim in records.claims] == [4, 4]
    assert [claim.claimed for claim in groups.claims] == [0, 2]
    assert [claim.fewest for claim in groups.claims] == [4, 1]


def test_p_values_of_candidates_stand_beside_their_scores(inputs, tmp_path):
    scores = made_scores(inputs)
    plans = plan_audit(inputs, EvidenceStore(str(tmp_path / "store")))
    with score_parts(str(tmp_path / "store")) as parts:
        parts.write("one", {"loss": scores, "zlib": np.full(scores.size, np.nan)})
        rows = [row for table in score_tables(inputs, plans, parts) for row in table.to_pylist()]
    others = scores[2 * 2 : 2 * 22]
    for row, score in zip(rows[: scores.size], scores, strict=True):
        known = row["is_member"] is not None or np.isnan(score)
        expected = None if known else (1 + np.sum(others >= score)) / 41
        assert row["p_value"] == expected
    assert all(row["p_value"] is None for row in rows[scores.size :])


def test_one_run_bounds_need_a_coin_for_each_unit(tmp_path, tiny_gpt2):
    """Where groups share a coin, records are not tossed for one by one."""
    inputs = inputs_of(tmp_path, tiny_gpt2, metrics={"inclusion": "randomized"})
    judged = Judge.of(inputs).judge(made_scores(inputs), target="one", attack="a")
    assert "one_run" not in [bound.method for bound in judged.metrics.epsilon]
    assert "one_run" in [bound.method for bound in judged.group_metrics.epsilon]


def with_a_network(inputs):
    network = NamedAttack("network", SecMiNns(), None)
    return replace(inputs, attacks=[*inputs.attacks, network])


def test_attacks_that_are_fitted_on_labels_are_known_and_with_shadows_are_not_fitted_on_them(
    inputs,
):
    inputs = with_a_network(inputs)
    assert inputs.fitted_on_labels == {"network"}
    assert not replace(inputs, shadow_members={"s": frozenset()}).fitted_on_labels
    combined = NamedAttack("all", LearnedCombination(), None)
    inputs = replace(inputs, attacks=[*inputs.attacks, combined], shadow_members={"s": frozenset()})
    assert inputs.fitted_on_labels == {"all"}


def test_the_cards_say_which_are_fitted_on_labels_though_there_are_shadows(inputs):
    class OfAPlugIn(SecMiNns):
        name = "of_a_plug_in"
        needs = frozenset({"labels"})

    plugged = NamedAttack("of_a_plug_in", OfAPlugIn(), None)
    inputs = with_a_network(replace(inputs, attacks=[plugged]))
    inputs = replace(inputs, shadow_members={"s": frozenset()})
    said = {card.name: card.fitted_on_labels for card in _attack_cards(inputs)}
    assert said == {"of_a_plug_in": True, SecMiNns.name: False}


def test_their_scores_teach_no_combination_and_no_dataset_inference(inputs):
    """They hold the labels of the records that would be judged."""
    plain, scores = np.arange(52.0), np.arange(52.0)[::-1]
    inputs = with_a_network(inputs)
    found = {"loss": plain, "network": scores}
    assert [*Known(inputs).labelled(found).scores] == ["loss"]
    assert infer_datasets(inputs, "one", found) == infer_datasets(inputs, "one", {"loss": plain})
    assert infer_datasets(inputs, "one", {"network": scores}) == []


def test_groups_that_share_copies_count_once_in_dataset_inference(inputs):
    """Of 20 groups of non-members, ten are linked by copies, the last of them by others."""
    table, scores = inputs.records.table, {"loss": made_scores(inputs)}
    ids, groups = table["record_id"].to_pylist(), table["group"].to_pylist()
    own = {}
    for record, group in zip(ids, groups, strict=True):
        own.setdefault(group, []).append(record)
    linked = [f"non_members {n}" for n in range(10)]
    clusters = {own[group][0]: "one" for group in linked[:6]}
    clusters |= {own[group][1]: "two" for group in linked[5:]}
    units, fitted = _units_and_halves(inputs, clusters)
    assert np.unique(units).size == len(own) - 9
    of_linked = [group in linked for group in groups]
    assert np.unique(units[of_linked]).size == np.unique(fitted[of_linked]).size == 1
    alone, _ = _units_and_halves(inputs, {own[linked[0]][0]: "a", own[linked[0]][1]: "a"})
    assert np.array_equal(alone, _units_and_halves(inputs, {})[0]), "they are one group already"
    tests = infer_datasets(inputs, "one", scores, clusters)
    assert all(t.n_non_members <= 11 for t in tests)


def test_their_epsilon_is_not_bounded_from_one_run(tmp_path, tiny_gpt2):
    """A guess on one record would use the coins of others that are guessed."""
    inputs = with_a_network(inputs_of(tmp_path, tiny_gpt2, metrics={"inclusion": "randomized"}))
    judge, scores = Judge.of(inputs), made_scores(inputs)
    methods = {
        attack: {
            bound.method
            for bound in judge.judge(scores, target="one", attack=attack).group_metrics.epsilon
        }
        for attack in ("loss", "network")
    }
    assert methods["loss"] > {"held_out"}
    assert methods["network"] == {"held_out"}


def test_records_without_groups_have_a_coin_each(tmp_path, tiny_gpt2):
    folder = tmp_path / "b"
    for stated, expected in ((None, False), ("randomized", True)):
        spec = audit(folder, tiny_gpt2, PARAPHRASER, attacks=["loss"],
                     metrics={"inclusion": stated})  # fmt: skip
        judge = Judge.of(resolve_inputs(spec))
        judged = judge.judge(np.arange(6.0), target="one", attack="loss").metrics
        assert any(b.method == "one_run" for b in judged.epsilon) == expected


def measured(target, attack, strength):
    is_member = np.arange(400) < 200
    scores = stats.norm.ppf((np.arange(400) * 7919 % 400 + 0.5) / 400) + strength * is_member
    return measure(scores, is_member, target=target, attack=attack)


def test_the_leader_is_compared_with_every_other_and_between_targets():
    metrics = [
        measured("early", "loss", 0.5), measured("early", "zlib", 1.0),
        measured("late", "loss", 3.0), measured("late", "learned", 4.0),
        measured("late", "zlib", 2.0),
        NotMeasured(target="early", attack="learned", n_members=0, n_non_members=0, n_unscored=0,
                    reason="none"),
    ]  # fmt: skip
    assert all(isinstance(entry, AttackMetrics) for entry in metrics[:-1])
    early, late = questions_of(metrics, {"learned"})
    assert early == [Question("attacks", ("early", "zlib"), ("early", "loss"))]
    assert late == [
        Question("attacks", ("late", "loss"), ("late", "learned")),
        Question("attacks", ("late", "loss"), ("late", "zlib")),
        Question("targets", ("late", "loss"), ("early", "loss")),
    ]


def test_a_model_that_was_trained_again_is_compared_with_the_one_before():
    """By the attack that leads there, also where a third target is the strongest."""
    metrics = [
        *(measured("before", attack, by) for attack, by in (("loss", 1.0), ("zlib", 2.0))),
        *(measured("after", attack, by) for attack, by in (("loss", 0.1), ("zlib", 0.0))),
        measured("other", "loss", 4.0),
    ]
    before, *_ = questions_of(metrics, set(), {"after": "before"})
    assert before == [
        Question("attacks", ("before", "zlib"), ("before", "loss")),
        Question("targets", ("before", "zlib"), ("after", "zlib")),
    ]


def test_nothing_measured_is_nothing_compared():
    assert questions_of([], set()) == []


def test_a_run_says_whether_groups_were_split(inputs, tmp_path):
    """And under which names each attack was run, so that its verdict knows which learn."""
    store = EvidenceStore(str(tmp_path / "store"))
    plans = plan_audit(inputs, store)
    with score_parts(str(tmp_path / "store")) as parts:
        reduction = reduce_audit(inputs, store, plans, parts, Here())
        result = sum_up(Run(inputs, store, plans, plans, {}, 1.0), reduction, parts, Here())
    assert result.split_by_group
    assert [(card.labels, card.fitted_on_labels) for card in result.attacks] == [
        (["loss"], False), (["zlib"], False),
    ]  # fmt: skip
