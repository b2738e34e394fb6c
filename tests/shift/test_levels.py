"""An alarm of the shift check stops what it explains, and takes nothing else hostage."""

import numpy as np
import pytest

from raymia.metrics.measuring import measure
from raymia.metrics.summary import Estimate
from raymia.results.gate import decide_again
from raymia.results.result import RecordCounts, RunResult
from raymia.results.verdict import reach_verdict
from raymia.shift.result import BlindGuess, ExcessOverBlind, ShiftCheck

N = 600


def guess(auc, spread=0.02, p_value=0.001):
    return BlindGuess(
        name="text", title="words", fitted=True, sides=1, higher_is_member=True, n_members=N,
        n_non_members=N, auc=Estimate(value=auc, low=auc - 0.04, high=auc + 0.04),
        p_value=p_value, corrected_p_value=4 * p_value, null_spread=spread,
    )  # fmt: skip


def check(auc, split="unknown", **changes):
    return ShiftCheck(
        state="shift", error_rate=0.05, n_members=N, n_non_members=N, split=split,
        guesses=[guess(auc, **changes), guess(0.5), guess(0.5), guess(0.5)],
    )  # fmt: skip


def excess(attack, attack_auc, guesser_auc, p_value=1e-6):
    return ExcessOverBlind(
        target="t", attack=attack, guesser="text", n_members=N, n_non_members=N,
        attack_auc=attack_auc, guesser_auc=guesser_auc,
        excess=Estimate(value=attack_auc - guesser_auc, low=0.0, high=1.0),
        p_value=p_value, corrected_p_value=p_value, confidence=0.95,
    )  # fmt: skip


def audit(shift, found=()):
    draws, is_member = np.random.default_rng(0), np.arange(2 * N) < N
    metrics = [
        measure(draws.normal(size=2 * N) + by * is_member, is_member, target="t", attack=name)
        for name, by in (("strong", 2.5), ("weak", 0.4))
    ]
    return RunResult(
        name="n", created="", versions={}, seed=0, code_version="", metrics=metrics, shift=shift,
        records=RecordCounts(members=N, non_members=N, candidates=0, set_aside=0),
        excess_over_blind=list(found), complete=True, audit_yaml="", seconds=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (check(0.54, spread=0.02), "note"),  # as a random split of the demo had
        (check(0.53, spread=0.002), "note"),  # shown without a doubt, and small
        (check(0.56, spread=0.02), "note"),  # large, and not strong: p = 0.0013, of four guessers
        (check(0.65, spread=0.02), "stop"),
        (check(0.65, split="randomized"), "note"),
        (check(0.65).model_copy(update={"state": "no_shift_found"}), "none"),
    ],
)
def test_only_what_is_strong_and_large_stops(found, level):
    assert found.level == level


def test_a_noisier_guesser_that_is_a_little_better_does_not_take_a_stop_back():
    noisy, sure = guess(0.72, spread=0.0735), guess(0.71, spread=0.05)
    shifted = check(0.71).model_copy(update={"guesses": [noisy, sure, guess(0.5), guess(0.5)]})
    assert not noisy.stops(4)
    assert sure.stops(4)
    assert shifted.level == "stop"


def test_a_note_leaves_verdict_and_gate_as_they_are():
    verdict = reach_verdict(audit(check(0.54)))
    assert verdict.finding == "leaks_strongly"
    assert any("Note: members can be told from non-members" in x for x in verdict.limits)
    (outcome,) = decide_again(audit(check(0.54)), ["strong.auc > 0.7"])
    assert outcome.status == "failed"


def test_a_stated_random_split_is_printed():
    stated = reach_verdict(audit(check(0.65, split="randomized")))
    assert stated.finding == "leaks_strongly"
    assert any("were split at random" in limit for limit in stated.limits)


def test_attacks_far_stronger_than_the_best_guess_are_still_measured():
    found = [excess("strong", 0.96, 0.65), excess("weak", 0.61, 0.65)]
    result = audit(check(0.65), found)
    verdict = reach_verdict(result)
    assert (verdict.finding, verdict.targets[0].attack) == ("leaks_strongly", "strong")
    assert any("explains less than half of it" in limit for limit in verdict.limits)
    statuses = [o.status for o in decide_again(result, ["strong.auc > 0.7", "weak.auc > 0.9"])]
    assert statuses == ["failed", "not_evaluated"]
    (any_attack,) = decide_again(result, ["any.auc > 0.99"])
    assert any_attack.status == "not_evaluated"
    assert "weak: members and non-members differ without any model" in any_attack.reason


def test_attacks_that_a_guess_explains_are_not():
    for found in ([excess("strong", 0.79, 0.65)], [excess("strong", 0.96, 0.65, p_value=0.2)], []):
        assert reach_verdict(audit(check(0.65), found)).finding == "shift_suspected"
