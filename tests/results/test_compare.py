"""Two runs side by side."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores
from rich.console import Console

from raymia import load_run
from raymia.metrics.delong import auc_difference
from raymia.report.comparison_table import print_comparison
from raymia.report.files import write_run
from raymia.results.changes import finding_of
from raymia.results.compare import compare_runs, parse_pairs
from raymia.results.comparison_result import AttackChange, Difference
from raymia.results.result import AttackCard
from raymia.shift.result import ShiftCheck
from raymia.util.errors import InputError

MEMBERS, OTHERS = 60, 120


@pytest.fixture
def stored(tmp_path):
    """Write a run of some scores, by default the made-up ones, and open it."""

    def make(name, scores=None, **changes):
        scores = made_up_scores() if scores is None else scores
        result = made_up_result(scores, **changes)
        write_run(str(tmp_path / name), result, [scores], made_up_curves(scores))
        return load_run(tmp_path / name)

    return make


def with_column(scores, name, values):
    place = scores.schema.get_field_index(name)
    return scores.set_column(place, name, pa.array(values, scores.schema.field(name).type))


def stronger(scores, by, target="tuned", attack="loss"):
    """Members' scores of an attack raised, so that it finds more of them."""
    rows = scores.to_pylist()
    raised = [
        row["score"]
        + by * (row["is_member"] and row["target"] == target and row["attack"] == attack)
        for row in rows
    ]
    return with_column(scores, "score", raised)


def test_an_attack_that_finds_more_is_told_with_its_numbers(stored):
    scores = made_up_scores()
    before, after = stored("a"), stored("b", stronger(scores, 1.5))
    tuned, base = compare_runs(before, after).targets
    assert (tuned.finding, base.finding) == ("leaks_more", "no_change_shown")
    loss = tuned.attacks[0]
    is_member = np.arange(MEMBERS + OTHERS) < MEMBERS
    first = before.scores("tuned", "loss")["score"].to_numpy()
    second = after.scores("tuned", "loss")["score"].to_numpy()
    expected = auc_difference(second, first, is_member)
    assert loss.attack == "loss"
    assert (loss.auc.value, loss.auc.low, loss.auc.p_value) == (
        expected.value, expected.low, expected.p_value,
    )  # fmt: skip
    assert loss.auc.b - loss.auc.a == pytest.approx(expected.value)
    assert loss.tpr.a == before.metrics("tuned", "loss")[0].tpr[1].estimate.value
    assert loss.tpr.b == after.metrics("tuned", "loss")[0].tpr[1].estimate.value
    assert tuned.sentence.startswith(
        "tuned: leaks more in the second run, as 1 of 2 attacks shows; loss: AUC "
    )
    assert base.sentence.startswith("base: no change is shown; ")
    assert f"AUC {loss.auc.a:.3f} to {loss.auc.b:.3f}" in tuned.sentence


def test_of_an_attack_fitted_on_labels_the_auc_alone_is_compared_by_a_wider_interval(stored):
    """A rise that is shown of another attack may be chance of such a one."""
    more = stronger(made_up_scores(), 0.45)
    cards = [AttackCard(name="loss", title="t", source="s", formula="f", learns=True)]
    plain, fitted = stored("a"), stored("b", attacks=cards)
    found = {
        name: compare_runs(before, stored(name, more, attacks=learned))
        for name, before, learned in (("none", plain, []), ("second", plain, cards),
                                      ("both", fitted, cards))
    }  # fmt: skip
    loss = {
        name: next(entry for entry in comparison.targets[0].attacks if entry.attack == "loss")
        for name, comparison in found.items()
    }
    widths = [loss[name].auc.high - loss[name].auc.low for name in found]
    assert widths == sorted(widths)
    assert widths[2] > 1.5 * widths[0]
    assert len({entry.auc.value for entry in loss.values()}) == 1
    assert [entry.tpr is None for entry in loss.values()] == [False, True, True]
    assert found["none"].targets[0].finding == "leaks_more"
    assert found["both"].targets[0].finding == "no_change_shown"
    console = Console(file=io.StringIO(), width=200)
    print_comparison(found["both"], console)
    assert "not compared: fitted on labels" in console.file.getvalue()


def test_turned_around_it_leaks_less(stored):
    before, after = stored("a"), stored("b", stronger(made_up_scores(), 1.5))
    assert compare_runs(after, before).targets[0].finding == "leaks_less"


def test_changes_in_both_directions_are_mixed(stored):
    scores = stronger(stronger(made_up_scores(), 1.5), -2.0, attack="ez@self_prompt")
    tuned = compare_runs(stored("a"), stored("b", scores)).targets[0]
    assert tuned.finding == "mixed"


def test_a_run_does_not_differ_from_itself(stored):
    comparison = compare_runs(stored("a"), stored("b"))
    assert comparison.settings == []
    assert comparison.records.common == MEMBERS + OTHERS
    assert {t.finding for t in comparison.targets} == {"no_change_shown"}
    assert all(a.auc is None or a.auc.p_holm == 1 for t in comparison.targets for a in t.attacks)


def test_p_values_are_corrected_over_every_number_of_every_target(stored):
    comparison = compare_runs(stored("a"), stored("b", stronger(made_up_scores(), 0.4)))
    found = [
        difference
        for target in comparison.targets
        for entry in target.attacks
        for difference in (entry.auc, entry.tpr)
        if difference is not None
    ]
    assert len(found) == 2 * 2 * 2  # targets, attacks with scores, numbers
    smallest = min(found, key=lambda difference: difference.p_value)
    assert smallest.p_holm == pytest.approx(min(1, len(found) * smallest.p_value))


def test_only_common_records_with_one_label_are_compared(stored):
    scores = made_up_scores()
    rows = MEMBERS + OTHERS
    ids = [f"r{i % rows + 10}" for i in range(scores.num_rows)]  # r10 to r189
    labels = scores["is_member"].to_pylist()
    labels = [label if i % rows != 20 else False for i, label in enumerate(labels)]  # r30
    other = with_column(with_column(scores, "record_id", ids), "is_member", labels)
    records = (comparison := compare_runs(stored("a"), stored("b", other))).records
    assert (records.common, records.relabelled, records.added, records.removed) == (159, 11, 10, 10)
    assert records.examples["added"] == [f"r{i}" for i in range(180, 190)]
    assert "r30" in records.examples["relabelled"]
    loss = comparison.targets[0].attacks[0]
    assert loss.n_members + loss.n_non_members == records.common
    assert any("11 records are members in one run" in line for line in comparison.cautions)


def test_the_order_of_records_is_nothing(stored):
    scores = made_up_scores()
    order = np.random.default_rng(0).permutation(scores.num_rows)
    comparison = compare_runs(stored("a"), stored("b", scores.take(order)))
    assert {t.finding for t in comparison.targets} == {"no_change_shown"}
    assert all(a.auc is None or a.auc.value == 0 for t in comparison.targets for a in t.attacks)


def test_settings_and_versions_that_differ_are_told_by_their_path(stored):
    files = (
        "{seed: 1, targets: [{name: t, model: x}], metrics: {fprs: [0.1]}, output: here}",
        "{seed: 1, targets: [{name: t, model: y}], metrics: {fprs: [0.1, 0.01]}, output: there}",
    )
    versions = ({"raymia": "1", "torch": "2"}, {"raymia": "1", "torch": "3"})
    a, b = (
        stored(name, audit_yaml=text, versions=version)
        for name, text, version in zip("ab", files, versions, strict=True)
    )
    assert [(c.what, c.a, c.b) for c in compare_runs(a, b).settings] == [
        ("targets[t].model", "x", "y"),
        ("metrics.fprs", "[0.1]", "[0.1, 0.01]"),
        ("version of torch", "2", "3"),
    ]


def test_settings_of_targets_that_are_matched_are_compared_whatever_their_names(stored):
    a = stored("a", audit_yaml="targets: [{name: tuned, model: x, dtype: auto}]")
    b = stored("b", audit_yaml="targets: [{name: base, model: y, dtype: auto}]")
    changes = compare_runs(a, b, {"tuned": "base"}).settings
    assert [(c.what, c.a, c.b) for c in changes] == [
        ("targets[base].name", "tuned", "base"),
        ("targets[base].model", "x", "y"),
    ]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            {"tuned": "base"},
            [
                ("targets[base].name", "tuned", "base"),
                ("targets[base].model", "x", "w"),
                ("targets[base of the first run].name", "base", None),
                ("targets[base of the first run].model", "y", None),
                ("targets[tuned].name", None, "tuned"),
                ("targets[tuned].model", None, "z"),
            ],
        ),
        (
            {"tuned": "base", "base": "tuned"},
            [
                ("targets[base].name", "tuned", "base"),
                ("targets[base].model", "x", "w"),
                ("targets[tuned].name", "base", "tuned"),
                ("targets[tuned].model", "y", "z"),
            ],
        ),
    ],
)
def test_a_target_whose_name_another_takes_hides_no_setting(stored, pairs, said):
    a = stored("a", audit_yaml="targets: [{name: tuned, model: x}, {name: base, model: y}]")
    b = stored("b", audit_yaml="targets: [{name: tuned, model: z}, {name: base, model: w}]")
    assert [(c.what, c.a, c.b) for c in compare_runs(a, b, pairs).settings] == said


def test_attacks_come_by_how_much_they_changed(stored):
    scores = stronger(stronger(made_up_scores(), 2.0), 1.0, attack="ez@self_prompt")
    attacks = compare_runs(stored("a"), stored("b", scores)).targets[0].attacks
    assert [entry.attack for entry in attacks] == ["loss", "ez@self_prompt", "zlib"]
    assert attacks[0].auc.value > attacks[1].auc.value


def test_targets_and_attacks_of_one_run_alone_are_named(stored):
    scores = made_up_scores()
    names = ["old" if name == "base" else name for name in scores["target"].to_pylist()]
    attacks = ["surp" if name == "zlib" else name for name in scores["attack"].to_pylist()]
    other = with_column(with_column(scores, "target", names), "attack", attacks)
    comparison = compare_runs(stored("a"), stored("b", other))
    assert (comparison.removed, comparison.added) == (["base"], ["old"])
    (tuned,) = comparison.targets
    assert (tuned.removed, tuned.added) == (["zlib"], ["surp"])


def test_targets_of_other_names_are_matched_where_it_is_said(stored):
    comparison = compare_runs(stored("a"), stored("b"), {"tuned": "base"})
    assert [(t.a, t.b) for t in comparison.targets] == [("tuned", "base")]
    assert comparison.added == ["tuned"]
    assert comparison.removed == ["base"]
    assert comparison.targets[0].sentence.startswith("base (tuned in the first run): ")


def test_an_attack_without_scores_is_not_compared(stored):
    scores = made_up_scores().slice(2 * 180, 180)  # zlib on tuned
    (target,) = compare_runs(stored("a", scores), stored("b", scores)).targets
    assert target.finding == "not_comparable"
    assert "cannot be compared" in target.sentence


def test_an_attack_on_very_few_records_is_not_compared(stored):
    scores = made_up_scores().slice(0, 180)
    few = with_column(scores, "score", [
        None if 4 <= place < MEMBERS else score
        for place, score in enumerate(scores["score"].to_pylist())
    ])  # fmt: skip
    (target,) = compare_runs(stored("a", scores), stored("b", few)).targets
    assert target.finding == "not_comparable"
    assert "no attack has scores of 5 members and 5 non-members in both runs" in target.sentence


def test_unfinished_runs_and_shift_are_cautioned_about(stored):
    check = ShiftCheck(state="shift", error_rate=0.05, n_members=60, n_non_members=120)
    found = compare_runs(stored("a", complete=False), stored("b", shift=check))
    cautions = found.cautions
    assert {target.finding for target in found.targets} == {"not_comparable"}
    assert "leakage cannot be compared" in found.targets[0].sentence
    assert "the run is incomplete" in cautions[0]
    assert "members and non-members differ without any model" in cautions[1]


def test_groups_that_were_split_are_cautioned_about(stored):
    found = compare_runs(stored("a", split_by_group=True), stored("b"))
    (caution,) = found.cautions
    assert "as if records were independent" in caution


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        (0.6, 0.8, "leaks_more"), (0.8, 0.6, "leaks_less"),
        (0.4, 0.2, "leaks_more"), (0.2, 0.4, "leaks_less"),
        (0.48, 0.7, "leaks_more"), (0.7, 0.48, "leaks_less"),
        (0.3, 0.72, "mixed"), (0.72, 0.3, "mixed"),
    ],
)  # fmt: skip
def test_it_is_the_distance_of_an_auc_from_guessing_that_leaks(before, after, finding):
    auc = Difference(
        a=before, b=after, value=after - before, low=after - before - 0.01,
        high=after - before + 0.01, p_value=1e-6, p_holm=1e-6,
    )  # fmt: skip
    entry = AttackChange(attack="loss", n_members=99, n_non_members=99, auc=auc, tpr=None)
    assert finding_of([entry]) == finding
    unshown = entry.model_copy(update={"auc": auc.model_copy(update={"p_holm": 0.5})})
    assert finding_of([unshown]) == "no_change_shown"


def test_runs_without_a_common_record_are_refused(stored):
    scores = made_up_scores()
    ids = [f"s{name}" for name in scores["record_id"].to_pylist()]
    with pytest.raises(InputError, match="have no record in common, so there is nothing to"):
        compare_runs(stored("a"), stored("b", with_column(scores, "record_id", ids)))


def test_a_redacted_run_and_one_that_is_not_are_refused_for_that(stored):
    scores = made_up_scores()
    ids = [f"s{name}" for name in scores["record_id"].to_pylist()]
    redacted = stored("b", with_column(scores, "record_id", ids), redacted=True)
    with pytest.raises(InputError, match="b is redacted and the other run is not"):
        compare_runs(stored("a"), redacted)


def test_runs_without_a_common_target_are_refused_with_what_to_do(stored):
    scores = made_up_scores()
    names = [f"{name}-2" for name in scores["target"].to_pylist()]
    b = stored("b", with_column(scores, "target", names))
    with pytest.raises(
        InputError, match=r"no target in common: .* has tuned, base, .*--target A=B"
    ):
        compare_runs(stored("a"), b)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tuned": "bases"}, "has no target 'bases'; did you mean 'base'?"),
        ({"tunes": "base"}, "has no target 'tunes'; did you mean 'tuned'?"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_the_nearest_name(stored, given, says):
    with pytest.raises(InputError) as refused:
        compare_runs(stored("a"), stored("b"), given)
    assert says in str(refused.value)


def test_pairs_of_targets_are_read_or_refused():
    assert parse_pairs(["a=b", "c=d"]) == {"a": "b", "c": "d"}
    for text in ("a", "a=", "=b"):
        with pytest.raises(InputError, match="expected A=B"):
            parse_pairs([text])
    with pytest.raises(InputError, match="'a' is given twice, with 'b' and 'c'"):
        parse_pairs(["a=b", "a=c"])
