"""Made-up audits that come to a known verdict."""

import numpy as np

from raymia.metrics.measuring import measure
from raymia.metrics.summary import Estimate
from raymia.results.result import AttackCard, RecordCounts, RunResult
from raymia.shift.result import BlindGuess, ExcessOverBlind, ShiftCheck


def audit(strengths, n=150, seed=0, combined=(), **changes):
    """A run whose attacks separate members from non-members by so many standard deviations."""
    draws = np.random.default_rng(seed)
    is_member = np.arange(2 * n) < n
    metrics = []
    for place, strength in strengths.items():
        target, attack = place.split("/")
        values = draws.normal(size=2 * n) + strength * is_member
        metrics.append(measure(values, is_member, target=target, attack=attack))
    fields = {
        "name": "audit", "created": "2026-11-21T22:00:00Z", "versions": {}, "seed": 0,
        "code_version": "1", "metrics": metrics, "complete": True, "audit_yaml": "", "seconds": 1.0,
        "records": RecordCounts(members=n, non_members=n, candidates=0, set_aside=0),
        "attacks": [
            AttackCard(name=name, title="t", source="s", formula="f", combines=name in combined)
            for name in {place.split("/")[1] for place in strengths}
        ],
    }  # fmt: skip
    return RunResult(**{**fields, **changes})


def as_groups(metrics):
    """The same, as if measured on groups of one record each."""
    return [entry.model_copy(update={"records_per_group": 1}) for entry in metrics]


def shifted(state="shift", auc=0.7):
    guess = BlindGuess(
        name="bag_of_words", title="a bag of words", fitted=True, sides=1, higher_is_member=True,
        n_members=150, n_non_members=150, auc=Estimate(value=auc, low=auc - 0.05, high=auc + 0.05),
        p_value=0.001, corrected_p_value=0.004,
    )  # fmt: skip
    return ShiftCheck(
        state=state, error_rate=0.05, n_members=150, n_non_members=150, guesses=[guess]
    )


def excess(value, p_value):
    return ExcessOverBlind(
        target="tuned", attack="ratio", guesser="bag_of_words", n_members=150, n_non_members=150,
        attack_auc=0.7 + value, guesser_auc=0.7, p_value=p_value, corrected_p_value=p_value,
        excess=Estimate(value=value, low=value - 0.05, high=value + 0.05), confidence=0.95,
    )  # fmt: skip
