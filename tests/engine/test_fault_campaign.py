"""What tools/chaos.py breaks can be planned, and what it would find wrong is found."""

from __future__ import annotations

import chaos
import pytest
from chaos import Outcome, compare, summary
from faults.audits import EACH, VARIANTS, Audit

EXPECTED = [(("target", "loss", record), float.hex(0.25)) for record in "abc"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_can_be_planned(tmp_path, variant):
    audit = Audit(tmp_path / "audit", "", variant)
    # Of the text audit each record and its two neighbors are asked about; what is asked of a
    # reference is known when it is made.
    assert audit.missing() == (2 * EACH * 5 if variant == "texts" else None)


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (EXPECTED, (0, 0, 0)),
        (EXPECTED[1:], (1, 0, 0)),
        ([*EXPECTED, EXPECTED[0]], (0, 1, 0)),
        ([*EXPECTED[:2], (EXPECTED[2][0], float.hex(0.25 + 2**-54))], (0, 0, 1)),
    ],
    ids=["as they were", "lost", "twice", "the last bit"],
)
def test_scores_are_held_to_the_undisturbed_ones_one_by_one(found, counts):
    outcome = Outcome("driver", "a commit")
    compare(sorted(found), EXPECTED, outcome)
    assert (outcome.lost, outcome.doubled, outcome.different) == counts
    assert bool(outcome.wrong) == any(counts)


def test_a_campaign_goes_on_after_the_outcomes_that_there_are(tmp_path):
    outcomes = [Outcome("driver", "one", hit=True, exits=[-9, 0]), Outcome("s3", "two", exits=[0])]
    chaos.keep(outcomes, tmp_path)
    assert chaos.read(tmp_path) == outcomes
    assert "2 disturbed audits, 1 of them hit, at one, two: 0 scores lost" in summary(outcomes)
