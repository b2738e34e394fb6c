"""What is said of records that a model was trained again without."""

from types import SimpleNamespace

import pytest
from made_up_verdicts import as_groups, audit, shifted

from raymia.metrics.summary import Comparison, Estimate
from raymia.results.deletions import deletion_lines, deletions_of
from raymia.results.gate_result import Deletion
from raymia.shift.result import CopiesWithin
from raymia.spec import TargetSpec


def of_models(*afters, n=200, **changes):
    """What is found of models trained again, whose removed records are told so well."""
    strengths = {"before/loss": 3.0, **{f"m{i}/loss": by for i, by in enumerate(afters)}}
    result = audit(strengths, n=n, seed=1, **changes)
    names = [f"m{i}" for i in range(len(afters))]
    pairs = [
        Comparison(
            between="targets", target="before", attack="loss", other_target=name,
            other_attack="loss", n_members=n, n_non_members=n, value=0.4, low=0.3, high=0.5,
            confidence=0.95, p_value=0.001, p_holm=0.002,
        )
        for name in names
    ]  # fmt: skip
    targets = [TargetSpec(name="before", model="b")]
    targets += [TargetSpec(name=n, model=n, without_members_of="before") for n in names]
    return SimpleNamespace(targets=targets), result.model_copy(update={"comparisons": pairs})


def findings(spec, result):
    return [one.finding for one in deletions_of(spec, result)]


def line(low, high, finding):
    value = (low + high) / 2
    estimate = Estimate(value=value, low=low, high=high)
    pair = Comparison(
        between="targets", target="before", attack="ez@base", other_target="after",
        other_attack="ez@base", n_members=200, n_non_members=300, value=0.9 - value,
        low=0.3, high=0.5, confidence=0.95, p_value=0.001, p_holm=0.002,
    )  # fmt: skip
    (found,) = deletion_lines([
        Deletion(
            target="after", before="before", attack="ez@base", n_removed=200, n_non_members=300,
            auc_before=Estimate(value=0.9, low=0.87, high=0.93), auc_after=estimate,
            difference=pair, finding=finding,
        )
    ])  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("low", "high", "finding", "said"),
    [
        (0.45, 0.55, "alike", "score like non-members, as far as so many can show (200 of them"),
        (0.52, 0.62, "above", "can still be told from non-members (200 of them"),
        (
            0.38,
            0.48,
            "below",
            "score below non-members, so they can be told from them all the same",
        ),
    ],
)
def test_removed_records_are_told_from_non_members_or_not(low, high, finding, said):
    found = line(low, high, finding)
    assert said in found
    assert "On before, where ez@base leads, it is 0.900; on the records that both scored" in found
    assert "[+0.300, +0.500]" in found


def test_models_are_told_by_their_own_auc():
    assert findings(*of_models(2.0, 0.0, -2.0)) == ["above", "alike", "below"]


def test_under_a_shift_nothing_is_said_of_removed_records():
    """Those whom a person asked to remove are hardly ever a random part of all."""
    spec, result = of_models(2.0, -2.0, shift=shifted())
    assert findings(spec, result) == ["shift", "shift"]
    for said in deletion_lines(deletions_of(spec, result)):
        assert "it cannot be said whether" in said
        assert "differ without any model" in said
    noted = shifted(auc=0.53)
    assert findings(*of_models(2.0, shift=noted)) == ["above"]


def test_what_is_left_is_told_by_what_tests_count():
    spec, result = of_models(0.5)
    assert findings(spec, result) == ["above"]
    _, few = of_models(0.5, n=12)
    split = result.model_copy(
        update={"split_by_group": True, "group_metrics": as_groups(few.metrics)}
    )
    (one,) = deletions_of(spec, split)
    assert (one.of, one.finding) == ("groups", "alike")
    assert one.auc_after.value == few.metrics[1].auc.value
    assert one.auc_before.value == few.metrics[0].auc.value
    assert "] on groups)" in next(deletion_lines([one]))
    copies = CopiesWithin(members=188, non_members=188, groups=2, proposed=[["a", "b"]])
    check = shifted("no_shift_found").model_copy(update={"copies": copies})
    copied = result.model_copy(update={"shift": check, "distinct_metrics": few.metrics})
    (one,) = deletions_of(spec, copied)
    assert (one.of, one.finding) == ("distinct", "alike")
    untested = split.model_copy(update={"group_metrics": []})
    assert findings(spec, untested) == ["not_tested"]


def test_the_error_is_divided_among_all_models_that_were_trained_again():
    spec, result = of_models(0.1)
    assert findings(spec, result) == ["above"]
    (after,) = (m for m in result.metrics if m.target == "m0")
    spec, many = of_models(*[0.0] * 40)
    metrics = [m if m.target != "m0" else after for m in many.metrics]
    many = many.model_copy(update={"metrics": metrics})
    first, *_ = deletions_of(spec, many)
    assert (first.finding, first.auc_after.value) == ("alike", after.auc.value)
    assert first.auc_after.low > 0.5
    assert "no more than chance explains" in next(deletion_lines([first]))
    assert "above" not in findings(spec, many)
    assert "below" not in findings(spec, many)


def test_a_low_auc_of_an_attack_that_is_fitted_on_labels_tells_nothing():
    """Where nothing is left it is low by itself."""
    spec, result = of_models(-2.0)
    cards = [card.model_copy(update={"fitted_on_labels": True}) for card in result.attacks]
    assert findings(spec, result.model_copy(update={"attacks": cards})) == ["alike"]


def test_of_fewer_than_ten_of_a_kind_nothing_is_said():
    assert findings(*of_models(2.0, n=9)) == []
    assert findings(*of_models(2.0, n=10)) != []


def test_a_run_of_an_earlier_version_says_that_it_is_to_be_run_again():
    assert "run the audit again" in line(0.52, 0.62, None)
    assert "can still be told from non-members (" not in line(0.52, 0.62, None)
