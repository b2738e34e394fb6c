"""What is said of records that a model was trained again without."""

import pytest

from raymia.metrics.summary import Comparison, Estimate
from raymia.results.deletions import deletion_lines
from raymia.results.gate_result import Deletion


def line(low, high):
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
            difference=pair,
        )
    ])  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.45, 0.55, "score like non-members, as far as so many can show (200 of them"),
        (0.52, 0.62, "can still be told from non-members (200 of them"),
        (0.38, 0.48, "score below non-members, so they can be told from them all the same"),
    ],
)
def test_removed_records_are_told_from_non_members_or_not(low, high, said):
    found = line(low, high)
    assert said in found
    assert "On before, where ez@base leads, it is 0.900; on the same records that is" in found
    assert "[+0.300, +0.500]" in found
